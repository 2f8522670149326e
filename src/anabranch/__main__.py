"""``python -m anabranch``."""

from anabranch.app.cli import main

if __name__ == "__main__":
    main()
