"""The section `logs` of params.yaml. A plain dataclass: it is read before every command, and pydantic takes 0.2 s."""

from dataclasses import dataclass, fields
from typing import ClassVar, Final, Literal, get_args

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
Rotation = Literal["size", "daily", "weekly", "monthly"]
Security = Literal["starttls", "ssl", "none"]

LEVELS: Final[tuple[str, ...]] = get_args(Level)
LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")

_CHOICES: Final = {"level": Level, "file_level": Level, "rotate": Rotation, "smtp_security": Security}
_RANGES: Final = {"max_mb": (0, 10_000), "keep": (0, 10_000), "smtp_port": (1, 65_535)}


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """How much is logged, how long it is kept, who is told of what is critical. It changes no result."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    level: Level = "INFO"
    """Of the console and, unless file_level says otherwise, of the files. --log-level and BTCAI_LOG_LEVEL go before."""
    file_level: Level | None = None
    json_lines: bool = True
    """Whether btcai.jsonl is written beside btcai.log."""
    rotate: Rotation = "size"
    """By size alone, or at the turn of a UTC day, week (Monday) or month too."""
    max_mb: float = 20.0
    """A file never grows beyond it; 0: it may, where rotate names a time."""
    keep: int = 10
    """Archives of each file; older ones are deleted."""
    compress: bool = True
    """Archives with gzip."""
    email_to: tuple[str, ...] = ()
    """Who is told of critical records; nobody where it is empty."""
    email_from: str = ""
    """The first of email_to where it is empty."""
    smtp_host: str = ""
    smtp_port: int = 587
    smtp_user: str = ""
    """No login where it is empty. The password is the secret SMTP_PASSWORD: btcai secrets set SMTP_PASSWORD"""
    smtp_security: Security = "starttls"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in get_args(choices) and not (name == "file_level" and value is None):
                raise ValueError(f"{name} must be one of {', '.join(get_args(choices))}, was {value!r}")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            kinds = (int, float) if name == "max_mb" else (int,)
            if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
                raise ValueError(f"{name} must be a number from {low} to {high}, was {value!r}")
        for name in ("json_lines", "compress"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, was {getattr(self, name)!r}")
        if self.rotate == "size" and self.max_mb == 0:
            raise ValueError("max_mb must be above 0 where rotate is size: nothing else would end a file")
        self._check_mail()

    def _check_mail(self) -> None:
        for name in ("email_from", "smtp_host", "smtp_user"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be a text")
        if not isinstance(self.email_to, tuple) or not all(_is_address(one) for one in self.email_to):
            raise ValueError(f"email_to must be a list of addresses like ann@example.org, was {self.email_to!r}")
        if self.email_from and not _is_address(self.email_from):
            raise ValueError(f"email_from must be an address like btcai@example.org, was {self.email_from!r}")
        if not self.email_to:
            return
        if not self.smtp_host or set(self.smtp_host) & set("@/ "):
            raise ValueError("smtp_host must be the name of a mail server, without a user or a scheme, for email_to")
        if self.smtp_security == "none" and self.smtp_user and self.smtp_host not in LOOPBACK:
            raise ValueError("smtp_security must be starttls or ssl where there is a smtp_user: a password is sent")

    @classmethod
    def of(cls, section: object) -> "LogSettings":
        """Of a section as YAML has it; ValueError names what is wrong."""
        if section is None:
            return cls()
        if not isinstance(section, dict):
            raise ValueError("must be a section of names and values")
        names = {field.name for field in fields(cls)}
        if unknown := sorted(str(name) for name in section if name not in names):
            raise ValueError(
                f"must hold {', '.join(sorted(names))} alone, was {', '.join(unknown)}"
                "; the password is never here: btcai secrets set SMTP_PASSWORD"
            )
        to = section.get("email_to", ())
        return cls(**{**section, "email_to": tuple(to) if isinstance(to, list | tuple) else to})


def _is_address(text: object) -> bool:
    return isinstance(text, str) and text.count("@") == 1 and text.isprintable() and not set(text) & set(" ,;<>\"'")
