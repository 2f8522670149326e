"""Entity tags (RFC 9110 section 8.8.3), by which who has something is spared having it again."""


def is_among(tag: str, field: str) -> bool:
    """Tell whether ``If-None-Match`` names an entity tag (RFC 9110 section 13.1.2)."""
    named = [each.strip().removeprefix("W/") for each in field.split(",")]
    return "*" in named or tag in named
