"""What an account operation may answer instead of its result; all of them are `AccountsError`.

The texts are made to be shown to whoever asked. None says whether an account exists, unless the
caller has shown the right password or is an administrator by calling something that takes an id.
"""

from __future__ import annotations

from typing import Final, Literal

from headgate.errors import HeadgateError

__all__ = [
    "AccountDisabled",
    "AccountsError",
    "Busy",
    "EmailInvalid",
    "EmailTaken",
    "InvalidCredentials",
    "InvalidToken",
    "MfaInvalid",
    "MfaRequired",
    "PasswordTooWeak",
    "TokenReused",
    "TooManyAttempts",
    "UserNotFound",
    "Weakness",
]

Weakness = Literal[
    "unreadable",
    "too_short",
    "too_long",
    "common",
    "repetitive",
    "sequential",
    "about_you",
    "unchanged",
]

IN_WORDS: Final[dict[Weakness, str]] = {
    "unreadable": "it holds characters that are no text",
    "too_short": "it is too short; several words in a row are easy to keep in mind",
    "too_long": "it is too long",
    "common": "it is one of the passwords that are tried first, or built on one",
    "repetitive": "it repeats the same few characters",
    "sequential": "it runs along the alphabet, the numbers or the keyboard",
    "about_you": "it is hardly more than your address or the name of this site",
    "unchanged": "it is the one you have now",
}


class AccountsError(HeadgateError):
    """Everything that accounts raise on purpose."""

    code: str = "error"
    status: int = 400
    """What an HTTP answer of it should say."""


class InvalidCredentials(AccountsError):
    """No such account, or not its password: the same for both."""

    code = "invalid_credentials"
    status = 401

    def __init__(self) -> None:
        super().__init__("the e-mail address or the password is not right")


class AccountDisabled(AccountsError):
    """The password is right, but an administrator has closed the account."""

    code = "account_disabled"
    status = 403

    def __init__(self) -> None:
        super().__init__("this account is closed")


class MfaRequired(AccountsError):
    """The password is right; call again with the code of the authenticator app."""

    code = "mfa_required"
    status = 401

    def __init__(self) -> None:
        super().__init__("a code of your authenticator app, or a recovery code, is needed too")


class MfaInvalid(AccountsError):
    """The code is wrong, too old, or was used before."""

    code = "mfa_invalid"
    status = 401

    def __init__(self, reason: str = "the code is not right, or was used already") -> None:
        super().__init__(reason)


class TooManyAttempts(AccountsError):
    """Asked too often; the next try may come after `retry_after_s`."""

    code = "too_many_attempts"
    status = 429

    def __init__(self, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"too many attempts; try again in {max(1, round(retry_after_s))} s")


class Busy(AccountsError):
    """A bounded queue is full: of passwords to hash, or of mail to send."""

    code = "busy"
    status = 503

    def __init__(self, what: str, retry_after_s: float = 1.0) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"{what}; try again in {max(1, round(retry_after_s))} s")


class PasswordTooWeak(AccountsError):
    """The new password is refused; `reasons` holds every one."""

    code = "password_too_weak"
    status = 422

    def __init__(self, reasons: tuple[Weakness, ...]) -> None:
        self.reasons = reasons
        super().__init__(
            "choose another password: " + "; ".join(IN_WORDS[reason] for reason in reasons)
        )


class EmailInvalid(AccountsError):
    code = "email_invalid"
    status = 422

    def __init__(self) -> None:
        super().__init__("this is no e-mail address; write it as name@example.org")


class EmailTaken(AccountsError):
    """Only where e-mail verification is off; with it, the answer does not tell."""

    code = "email_taken"
    status = 409

    def __init__(self) -> None:
        super().__init__("there is an account with this e-mail address")


class InvalidToken(AccountsError):
    """Not one of ours, over, used up, or ended."""

    code = "invalid_token"
    status = 401

    def __init__(self, reason: str = "this token does not hold, or no longer") -> None:
        super().__init__(reason)


class TokenReused(InvalidToken):
    """A refresh token that was used before: its session is ended, somebody may have copied it."""

    code = "token_reused"

    def __init__(self) -> None:
        super().__init__("this refresh token was used before; log in again")


class UserNotFound(AccountsError):
    code = "user_not_found"
    status = 404

    def __init__(self) -> None:
        super().__init__("no user with this id")
