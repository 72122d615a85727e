"""One small tree of errors, by who must act. Each message: the rule, the value met, the remedy (a command to run)."""


class BtcaiError(Exception):
    """Something the user can mend; the CLI prints it as one line and exits with code 1."""


class ConfigError(BtcaiError):
    """params.yaml breaks a rule."""


class DataError(BtcaiError):
    """Bars that cannot be used as they are, or are not there."""


class ArtifactError(BtcaiError):
    """A stage's output is missing or does not fit; names the command that makes it."""


class DamageError(ArtifactError):
    """A stage's output is not what was written: bytes were lost or changed, by no version of btcai."""


class DiskError(BtcaiError):
    """A disk that is full, or a folder that may not be written; what was there before is there still."""
