"""Every error that agentgolf raises on purpose.

    AgentgolfError                 one sentence: what is wrong and what to do
    ├── UsageError                 the user asked for something that cannot be        exit 2
    │   └── CourseError            course.toml or the course's folder is wrong        exit 2
    ├── EnvironmentNotReadyError   a tool, a daemon, a package or space is missing    exit 4
    │   └── InfrastructureError    a sandbox engine failed while we used it           exit 4
    ├── LedgerError                the ledger cannot be read or written               exit 1
    │   ├── LedgerBusyError        another process holds the ledger                   exit 4
    │   └── DiskFullError          no space is left                                   exit 4
    ├── PatchError                 an edit cannot be parsed, is not allowed or does not apply
    │   └── NoEditError            a reply has no edit in it
    ├── ProposerExhaustedError     the proposer has nothing left to propose
    ├── ModelError                 a language model cannot be asked like this         exit 4
    │   ├── PromptTooLongError     the prompt does not fit; a shorter one may
    │   ├── UnsupportedFeatureError  the server knows no tools, or no schemas
    │   └── ModelUnavailableError  the model did not answer, for long
    ├── InterruptedRunError        the user stopped the run                           exit 130
    └── CandidateError             the candidate broke the contract; carries its outcome

`CandidateError` never ends a run: the loop turns it into the replicate's outcome.
"""

from agentgolf.domain import Outcome


class AgentgolfError(Exception):
    """The root. Its text is shown to the user as it is; `exit_code` is what the command ends with."""

    exit_code = 1


class UsageError(AgentgolfError):
    exit_code = 2


class CourseError(UsageError):
    pass


class EnvironmentNotReadyError(AgentgolfError):
    exit_code = 4


class InfrastructureError(EnvironmentNotReadyError):
    pass


class LedgerError(AgentgolfError):
    pass


class LedgerBusyError(LedgerError):
    exit_code = 4


class DiskFullError(LedgerError):
    exit_code = 4


class PatchError(AgentgolfError):
    pass


class NoEditError(PatchError):
    pass


class ProposerExhaustedError(AgentgolfError):
    pass


class ModelError(AgentgolfError):
    exit_code = 4


class PromptTooLongError(ModelError):
    pass


class UnsupportedFeatureError(ModelError):
    """`feature`: tools or schemas."""

    def __init__(self, message: str, feature: str) -> None:
        super().__init__(message)
        self.feature = feature


class ModelUnavailableError(ModelError):
    pass


class InterruptedRunError(AgentgolfError):
    exit_code = 130


class CandidateError(AgentgolfError):
    """The candidate failed by its own fault.

    `outcome` says how, the text says what in one sentence.
    """

    def __init__(self, outcome: Outcome, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome
