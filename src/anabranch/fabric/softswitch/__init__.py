"""An OpenFlow switch in software: oracle of the tests, and a thousand switches in one process."""
