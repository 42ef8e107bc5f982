"""Every error llmyard raises on purpose, as one tree.

    LLMYardError
    ├── ConfigurationError              stops the start, in one sentence
    ├── InputError                      the caller's data: field, problem, remedy      (HTTP 422)
    │   └── NotFoundError               the caller named something that is not there   (HTTP 404)
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
        ├── LLMContextTooLongError        no             no           no
        ├── LLMContentBlockedError        no             no           no
        ├── LLMInvalidRequestError        no             no           no
        └── LLMUnavailableError           no             no           yes   every deployment failed (request_id)

`orchestrator.stack` adds what only it raises. Providers map SDK class and HTTP status to these, never message text.
"""

from collections.abc import Sequence
from typing import ClassVar

from shared.attempts import Attempt


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


class LLMContextTooLongError(LLMError):
    """The prompt does not fit the model."""


class LLMContentBlockedError(LLMError):
    """The provider refused the content."""


class LLMInvalidRequestError(LLMError):
    """The request is wrong wherever it goes."""


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
