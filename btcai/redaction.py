"""What must never be read in a log: values of known secrets, and what looks like one, become ***.

Known are values that were asked for by btcai.secrets, and those of environment variables whose names look like a
secret's. Each is looked for as it is and in the forms that repr, JSON, URLs and base64 give it. A secret that is cut
or changed in another way before it is logged is not found.
"""

import base64
import json
import re
import threading
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import quote, quote_plus

MASK: Final = "***"
SHORTEST: Final = 6
"""Characters of a value that is looked for: a shorter one would take words out of every line."""

_NAMES = re.compile(
    r"token|secret|passw|passphrase|api_?key|access_?key|private_?key|credential|signature|(?:^|_)key$|[a-z0-9]_(?:pwd|pat)$",
    re.IGNORECASE,
)
_PLACES = re.compile(r"(?:_file|_path|_dir|_url_template)$", re.IGNORECASE)
"""Variables that say where a secret is, and not what it is."""

_HINT = re.compile("passw|passphrase|secret|token|key|sig|authorization|bearer|credential")
"""A text without any of these, in lower case, has no pair of _PAIR and no header of _HEADERS."""
_USERINFO = re.compile(r"(?<=://)[^\s/?#]+@")
_HEADERS = re.compile(
    r"""(authorization['"\\]*\s*[:=,]\s*(?:b['"\\]+|['"\\]*)(?:(?:basic|bearer|digest|token)\s+)?|\bbearer\s+)[^\s'",;\\]+""",
    re.IGNORECASE,
)
_PAIR = re.compile(
    r"""(password|passwd|passphrase|client[_-]?secret|secret[_-]?(?:access[_-]?)?key|secret|security[_-]?token|"""
    r"""(?:access|auth|session|refresh|id)[_-]?token|token|api[_-]?key|access[_-]?key(?:[_-]?id)?|private[_-]?key|"""
    r"""listenkey|credentials?|signature|\bsig)(\\*['"]?\s*[=:]\s*\\*|\\*['"]\s*,\s*\\*)b?(?:'[^']*'|"[^"]*"|[^\s&'",;)}\]]+)""",
    re.IGNORECASE,
)

_lock = threading.Lock()
_values: set[str] = set()
_known: re.Pattern[str] | None = None


def looks_secret(name: str) -> bool:
    """Whether a variable or setting of this name holds a secret."""
    return bool(_NAMES.search(name)) and not _PLACES.search(name)


def remember(*values: str | None) -> None:
    """From now on these are never logged; shorter ones than SHORTEST are left alone."""
    global _known
    with _lock:
        new = {value for value in values if value and len(value) >= SHORTEST} - _values
        if new:
            _values.update(new)
            forms = {form for value in _values for form in _forms(value) if len(form) >= SHORTEST}
            _known = re.compile("|".join(map(re.escape, sorted(forms, key=lambda form: (-len(form), form)))))
            redact_word.cache_clear()


def remember_environment(environment: Mapping[str, str]) -> None:
    """Remember the values of all variables whose names look like a secret's."""
    remember(*(value for name, value in environment.items() if looks_secret(name)))


def redact(text: str) -> str:
    """`text` without known secrets, without users and passwords in URLs, authorisation headers and secret pairs."""
    if _known is not None:
        text = _known.sub(MASK, text)
    if "://" in text:
        text = _USERINFO.sub(f"{MASK}@", text)
    if _HINT.search(text.lower()):
        text = _HEADERS.sub(rf"\g<1>{MASK}", text)
        text = _PAIR.sub(rf"\g<1>\g<2>{MASK}", text)
    return text


@lru_cache(maxsize=2048)
def redact_word(text: str) -> str:
    """redact, remembered: for names of functions, threads and the like, which come again in every line."""
    return redact(text)


def _forms(value: str) -> Iterable[str]:
    """A value as it is, and as it looks once it was quoted."""
    yield value
    for part in {value, *value.splitlines()}:  # a traceback or a wrapped text may show it line by line
        yield part
        yield repr(part)[1:-1]
        yield part.replace("\\", "\\\\").replace("'", "\\'")  # repr, where the text around it holds the other quote
        yield ascii(part)[1:-1]
        for ensure_ascii in (True, False):
            yield json.dumps(part, ensure_ascii=ensure_ascii)[1:-1]
        raw = part.encode("utf-8", "surrogatepass")
        for quoted in (quote(raw, safe=""), quote(raw), quote_plus(raw)):
            yield quoted
            yield re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), quoted)
        yield base64.b64encode(raw).decode()
        yield base64.urlsafe_b64encode(raw).decode()
        yield repr(raw)[2:-1]
