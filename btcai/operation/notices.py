"""Notices to people: always to the log, and where a secret NOTIFY_URL says: mail, webhook, chat, by apprise."""

import logging
import threading
from collections.abc import Sequence
from typing import Literal

from btcai.errors import BtcaiError
from btcai.redaction import redact, remember
from btcai.secrets import secret

logger = logging.getLogger(__name__)

Event = Literal["failed", "drift", "champion", "no data"]

LIMIT_S = 20.0
"""No run waits longer for a mail server or a webhook."""


def notify(event: Event, title: str, body: str) -> bool:
    """Tell people; True where every address took it, or there is none. Never raises, takes LIMIT_S at most."""
    title, body = redact(title), redact(body)
    level = logging.ERROR if event == "failed" else logging.WARNING
    logger.log(level, "notice, %s: %s: %s", event, title, " ".join(body.split()))
    try:
        addresses = secret("NOTIFY_URL")
    except BtcaiError as error:
        logger.warning("no notice was sent: %s", error)
        return False
    if not addresses:
        return True
    each = addresses.replace(",", " ").split()
    remember(*each)  # a plugin logs the one that it does not like
    taken: list[bool] = []
    sender = threading.Thread(target=_send, args=(each, event, title, body, taken), daemon=True)
    sender.start()
    sender.join(LIMIT_S)
    if not any(taken):
        late = f"no answer in {LIMIT_S:.0f} s; see that its servers run"
        why = late if sender.is_alive() else "refused or not reached; see what is logged before this, and mend it"
        logger.warning("the notice %r was not taken by every address of NOTIFY_URL: %s", title, why)
    return any(taken)


def _send(addresses: Sequence[str], event: Event, title: str, body: str, taken: list[bool]) -> None:
    """Add True to `taken` where every address took it."""
    try:
        import apprise

        kinds = {"failed": apprise.NotifyType.FAILURE, "champion": apprise.NotifyType.SUCCESS}
        service = apprise.Apprise()
        known = [service.add(address) for address in addresses]
        sent = service.notify(title=f"btcai: {title}", body=body, notify_type=kinds.get(event, "warning"))
        taken.append(bool(sent) and all(known))
    except Exception:  # a notice must not end a run, whatever a plugin of apprise raises
        logger.warning("the notice %r was not sent", title, exc_info=True)
