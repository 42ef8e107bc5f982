"""Every error llmyard raises on purpose, as one tree.

    LLMYardError
    ├── ConfigurationError              stops the start, in one sentence
    ├── InputError                      the caller's data: field, problem, remedy      (HTTP 422)
    │   ├── NotFoundError               the caller named something that is not there   (HTTP 404)
    │   └── ConflictError               what it is in already rules out what is wanted (HTTP 409)
    ├── MessageRejectedError            a message from the broker that could not become a job
    ├── JobFailedError                  what a Celery caller gets of a job that failed
    ├── RunCrashedError                 a surprise inside a run; its lease decides what becomes of the job
    └── LLMError                        a call to a model failed
        │                                 is_retryable · falls_back · parks
        ├── LLMRateLimitedError           yes            yes          yes   (retry_after_seconds)
        ├── LLMOverloadedError            yes            yes          yes   (retry_after_seconds)
        ├── LLMTimeoutError               yes            yes          yes
        ├── LLMConnectionError            yes            yes          yes
        ├── LLMBrokenAnswerError          yes            yes          yes   cut off, empty, or not in its dialect
        ├── LLMAuthenticationError        no             yes          yes   an operator mends the key, the job then runs
        ├── LLMQuotaExhaustedError        no             yes          yes   likewise the account
        ├── LLMModelNotFoundError         no             yes          yes   likewise the model's name
        ├── LLMCoolingDownError           no             yes          yes   left alone for now (retry_after_seconds)
        ├── LLMNoPermitError              no             yes          yes   our own limit is used up for now (likewise)
        ├── LLMUnsupportedError           no             yes          no    not among what the deployment can do
        ├── LLMContextTooLongError        no             if the group says so  no
        ├── LLMContentBlockedError        no             if the group says so  no
        ├── LLMInvalidRequestError        no             no           no
        ├── LLMSchemaMismatchError        no             no           no    no JSON of the wanted shape (content)
        ├── LLMStreamBrokenError          no             no           yes   after its first token (partial_text)
        ├── LLMBudgetExceededError        no             no           yes   (account, limit_usd, resets_at)
        ├── LLMStoreUnavailableError      no             no           yes   budgets cannot be kept just now
        └── LLMUnavailableError           no             no           yes   every deployment failed (request_id)

`orchestrator.stack` adds what only it raises. Providers map SDK class and HTTP status to these, never message text.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import ClassVar

from shared.attempts import Attempt, QuotaReading


class LLMYardError(Exception):
    """Base of all; catch it to catch whatever llmyard raises on purpose."""


class ConfigurationError(LLMYardError):
    """The program cannot start as configured; the message says what to set."""


class InputError(LLMYardError):
    """The caller's data cannot be used. `str()` reads `field: problem; remedy`."""

    http_status: ClassVar[int] = 422

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        super().__init__(f"{field}: {problem}; {remedy}")
        self.field = field
        self.problem = problem
        self.remedy = remedy

    def as_dict(self) -> dict[str, str]:
        return {"field": self.field, "problem": self.problem, "remedy": self.remedy}


class NotFoundError(InputError):
    """The caller named an agent, a tenant, a model group or a job that does not exist."""

    http_status = 404


class ConflictError(InputError):
    """The caller wants of something what its state no longer allows, such as to discard what was answered."""

    http_status = 409


class MessageRejectedError(LLMYardError):
    """A message from the broker could not become a job; `str()` names the field. Raised to the Celery caller."""


class JobFailedError(LLMYardError):
    """The job ended without an answer. Raised to the Celery caller, who may not have llmyard: one argument, a text."""


class RunCrashedError(LLMYardError):
    """Something nobody expected ended a run. The job keeps its row, and is given to another worker or quarantined."""


class LLMError(LLMYardError):
    """A call to a model failed. The class says what may be done about it."""

    is_retryable: ClassVar[bool] = False
    """Another attempt at the same deployment may succeed."""
    falls_back: ClassVar[bool] = False
    """Another deployment may succeed."""
    falls_back_as: ClassVar[str | None] = None
    """What a group lists in `fall_back_on` to have another deployment asked all the same."""
    parks: ClassVar[bool] = False
    """Time alone, or an operator, may mend it: keep the job and try later."""

    def __init__(
        self,
        message: str,
        *,
        retry_after_seconds: float | None = None,
        attempts: Sequence[Attempt] = (),
    ) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.attempts: tuple[Attempt, ...] = tuple(attempts)
        """What was tried before this was raised; the job ledger keeps it."""
        self.quota: tuple[QuotaReading, ...] = ()
        """What the provider said of our quotas when it refused."""
        self.spent_usd: Decimal | None = None
        """What it cost the purse that was sent along, as a pool service says; None where nobody says so."""


class LLMTransientError(LLMError):
    """A fault that the same deployment may get over by itself."""

    is_retryable = True
    falls_back = True
    parks = True


class LLMRateLimitedError(LLMTransientError):
    """The provider's quota for us is used up for now."""


class LLMOverloadedError(LLMTransientError):
    """The provider itself is short of capacity (HTTP 500, 502, 503, 504, 529)."""


class LLMTimeoutError(LLMTransientError):
    """No answer within the time allowed."""


class LLMConnectionError(LLMTransientError):
    """The provider could not be reached, or hung up."""

    was_sent: bool = True
    """False: no connection was made, so the provider cannot have counted anything."""


class LLMBrokenAnswerError(LLMTransientError):
    """An answer came, but cut off, empty, or not in the provider's own dialect."""


class LLMAuthenticationError(LLMError):
    """The key is missing, wrong, or not allowed to do this."""

    falls_back = True
    parks = True


class LLMQuotaExhaustedError(LLMError):
    """The account has nothing left to spend; asking again soon would not help."""

    falls_back = True
    parks = True


class LLMModelNotFoundError(LLMError):
    """The provider does not know the model."""

    falls_back = True
    parks = True


class LLMCoolingDownError(LLMError):
    """The deployment failed lately and is left alone; nothing was sent."""

    falls_back = True
    parks = True


class LLMNoPermitError(LLMError):
    """Our own limit at the deployment is used up for now; nothing was sent."""

    falls_back = True
    parks = True


class LLMUnsupportedError(LLMError):
    """The deployment cannot do what was asked for; nothing was sent. The message names who can."""

    falls_back = True


class LLMContextTooLongError(LLMError):
    """The prompt does not fit the model."""

    falls_back_as = "too_long"


class LLMContentBlockedError(LLMError):
    """The provider refused the content."""

    falls_back_as = "blocked"


class LLMInvalidRequestError(LLMError):
    """The request is wrong wherever it goes."""


class LLMSchemaMismatchError(LLMError):
    """The answer is not JSON of the wanted shape, and neither was a second one."""

    def __init__(self, message: str, *, content: str, attempts: Sequence[Attempt] = ()) -> None:
        super().__init__(message, attempts=attempts)
        self.content = content
        """What the model said instead."""


class LLMStreamBrokenError(LLMError):
    """A stream failed after its first token: nobody else may go on in silence. `__cause__` says why, typed."""

    parks = True

    def __init__(self, cause: LLMError, partial_text: str, *, attempts: Sequence[Attempt] = ()) -> None:
        super().__init__(
            f"the stream broke after {len(partial_text)} characters: {cause}",
            retry_after_seconds=cause.retry_after_seconds,
            attempts=attempts,
        )
        self.__cause__ = cause
        self.partial_text = partial_text
        """What had come until then."""


class LLMBudgetExceededError(LLMError):
    """The money we allow is spent, or held for calls in flight; nothing was sent."""

    parks = True

    def __init__(
        self,
        account: str,
        limit_usd: Decimal,
        resets_at: datetime | None,
        *,
        retry_after_seconds: float | None = None,
        attempts: Sequence[Attempt] = (),
    ) -> None:
        until = "it does not reset by itself" if resets_at is None else f"it resets at {resets_at.isoformat()}"
        super().__init__(
            f"the budget of {account}, {limit_usd} USD, has too little left for what this call may cost; {until}, "
            "and a lower max_tokens holds less of it",
            retry_after_seconds=retry_after_seconds,
            attempts=attempts,
        )
        self.account = account
        """Whose budget: `day`, `tenant:NAME`, `key:NAME`, or `call` for the tracker handed in with the call."""
        self.limit_usd = limit_usd
        self.resets_at = resets_at
        """None: never by itself."""


class LLMStoreUnavailableError(LLMError):
    """Where budgets are kept cannot be reached: nothing is spent that could not be counted."""

    parks = True


class LLMUnavailableError(LLMError):
    """Every deployment that could have answered failed."""

    parks = True

    def __init__(
        self,
        message: str = "All providers unavailable",
        *,
        request_id: str | None = None,
        retry_after_seconds: float | None = None,
        attempts: Sequence[Attempt] = (),
    ) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds, attempts=attempts)
        self.request_id = request_id
        """Where the failed request is kept, once something has kept it."""
