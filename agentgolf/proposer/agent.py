"""A language model that submits one hypothesis and one edit; a reply that cannot be used goes back to it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agentgolf.domain import Proposal, TrialSummary
from agentgolf.errors import ModelUnavailableError, NoEditError, PatchError, UnsupportedFeatureError
from agentgolf.proposer.answers import SCHEMA, Answer, hypothesis_of, read_answer
from agentgolf.proposer.base import UNUSABLE, Context, Proposer, diffs_of, taken
from agentgolf.proposer.catalogue import Technique
from agentgolf.proposer.conversation import Conversation
from agentgolf.proposer.llm import CallLog, Model
from agentgolf.proposer.prompts import Prompts
from agentgolf.proposer.toolbox import Toolbox
from agentgolf.proposer.wire import Message

# Where a trial's conversation goes on after its verdict.
LESSON_POSITION = 1_000_000
MAX_LESSON = 300
# Proposals in a row without a usable edit, after which as many others take turns with the model.
MAX_UNUSABLE = 3
# Replies in a row without a tool and without an edit, after which an agent is taken for one that cannot use tools.
MAX_TALK = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How an agent works. `steps` are templates, asked one after the other; the last reply holds the edit.

    `repairs`: how often a reply without a usable edit goes back. `structured`: the last reply is JSON by a
    schema. `tools`: it may use tools in `turns` turns, with so many smoke tests. `crash_repairs`: how often a
    change that crashed is tried again, mended. `lessons`: whether it writes a line after each verdict.
    """

    steps: Sequence[str] = ("task.md",)
    repairs: int = 2
    structured: bool = False
    tools: bool = False
    turns: int = 16
    smoke_tests: int = 2
    smoke_seconds: float = 5.0
    crash_repairs: int = 1
    lessons: bool = True


class AgentProposer:
    """`fallback` proposes while no model answers; `note` is told of it."""

    name = "agent"

    def __init__(
        self,
        model: Model,
        prompts: Prompts,
        playbook: Sequence[Technique],
        manner: Manner,
        *,
        fallback: Proposer | None = None,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._model, self._prompts, self._playbook, self._manner = model, prompts, tuple(playbook), manner
        self._fallback, self._note = fallback, note
        # What the server was found to lack.
        self._lacks: set[str] = set()

    def propose(self, context: Context) -> Proposal:
        """Raises `ModelError` when the server refuses what no waiting mends, such as a key."""
        if self._fallback is not None and self.rests(context.history, context.number):
            self._note(f"no usable edit in the model's last {MAX_UNUSABLE} proposals; an offline proposer takes a turn")
            return self._fallback.propose(context)
        while True:
            try:
                return self._converse(context)
            except UnsupportedFeatureError as error:
                if error.feature in self._lacks:
                    raise
                self._lacks.add(error.feature)
                self._note(f"{error}; going on without")
            except ModelUnavailableError as error:
                if self._fallback is None:
                    raise
                self._note(f"{error}; an offline proposer stands in for this trial")
                return self._fallback.propose(context)

    def learn(self, trial: TrialSummary, diff: str, log: str, calls: CallLog) -> str:
        """One line that later proposals read. Raises `ModelError`."""
        ask = self._prompts.render("lesson.md", trial=trial, diff=diff, log=log)
        reply = self._model.ask([Message(role="user", content=ask)], calls, LESSON_POSITION)
        line = next((row for row in reply.text.splitlines() if row.strip(" *_`#-")), "")
        return "".join(c for c in line.strip(" *_`#-") if c.isprintable())[:MAX_LESSON]

    def close(self) -> None:
        self._model.close()

    def rests(self, history: Sequence[TrialSummary], number: int) -> bool:
        """Whether a model that cannot write an edit leaves the trial of that number to an offline proposer."""
        last = [trial for trial in history if trial.proposer == self.name][-MAX_UNUSABLE:]
        if len(last) < MAX_UNUSABLE or not all(trial.detail.get(UNUSABLE) for trial in last):
            return False
        return number - last[-1].number <= MAX_UNUSABLE

    @property
    def learns(self) -> bool:
        return self._manner.lessons

    @property
    def crash_repairs(self) -> int:
        return self._manner.crash_repairs

    def _converse(self, context: Context) -> Proposal:
        manner = self._manner
        tools = manner.tools and "tools" not in self._lacks
        schema = SCHEMA if manner.structured and not tools and "schemas" not in self._lacks else None
        talk = Conversation(
            model=self._model,
            prompts=self._prompts,
            context=context,
            playbook=self._playbook,
            form="tools" if tools else "json" if schema else "text",
            position=100 * len(self._lacks),
        )
        if tools:
            return self._with_tools(talk)
        steps = ["crash.md"] if context.crash else list(manner.steps)
        talk.schema = schema if len(steps) == 1 else None
        text = talk.open(steps[0]).text
        for step in steps[1:]:
            talk.schema = schema if step == steps[-1] else None
            text = talk.say(self._prompts.render(step, **talk.values(40, True))).text
        said, edit_alone = text, False
        for attempt in range(manner.repairs + 1):
            try:
                answer = self._checked(context, read_answer(text, context.files, said))
                return self._proposal(context, answer, attempt + 1)
            except PatchError as error:
                refused, missing = str(error), isinstance(error, NoEditError)
            # Who named a change and stopped there writes its edit when asked for nothing else, from then on.
            edit_alone = edit_alone or (missing and talk.form == "text")
            if attempt < manner.repairs:
                values = {"refused": refused, "missing": missing, "form": talk.form, "files": context.files}
                text = talk.say(self._prompts.render("edit.md" if edit_alone else "repair.md", **values)).text
        return self._refusal(context, hypothesis_of(said), manner.repairs + 1, refused)

    def _with_tools(self, talk: Conversation) -> Proposal:
        """The full loop: until an edit is submitted, or the turns are used up."""
        context, manner = talk.context, self._manner
        toolbox = Toolbox(
            context=context,
            playbook=self._playbook,
            smoke_tests=manner.smoke_tests,
            smoke_seconds=manner.smoke_seconds,
            accept=lambda answer: self._twin(context, answer),
        )
        reply = talk.open("crash.md" if context.crash else manner.steps[0], toolbox)
        talked = 0
        for turn in range(1, manner.turns + 1):
            talked = 0 if reply.tool_calls else talked + 1
            if reply.tool_calls:
                talk.use_tools(reply, toolbox)
            else:
                try:  # many a model writes its edit down instead of calling the tool for it
                    toolbox.answer = self._checked(context, read_answer(reply.text, context.files))
                except PatchError as error:
                    toolbox.refused = str(error)
            if toolbox.answer is not None:
                return self._proposal(context, toolbox.answer, turn)
            if talked == MAX_TALK:
                raise UnsupportedFeatureError("the model talks about its tools and calls none", "tools")
            if turn == manner.turns:
                break
            left = manner.turns - turn
            # Who looks for ever may do nothing but submit in the end; who talks is shown how to write an edit down.
            toolbox.must_submit = left <= 2
            if toolbox.must_submit or not reply.tool_calls:
                values = {"files": context.files, "refused": toolbox.refused, "left": left}
                ask = self._prompts.render("nudge.md", **values)
                reply = talk.say(ask, toolbox)
            else:
                reply = talk.go_on(toolbox)
        return self._refusal(context, hypothesis_of(reply.text), manner.turns, toolbox.refused)

    def _checked(self, context: Context, answer: Answer) -> Answer:
        twin = self._twin(context, answer)
        if twin is not None:
            raise PatchError(twin)
        return answer

    def _twin(self, context: Context, answer: Answer) -> str | None:
        return context.workbench.twin(diffs_of(context.files, answer.files), context.parent)

    def _proposal(self, context: Context, answer: Answer, attempts: int) -> Proposal:
        detail: Mapping[str, object] = {
            "attempts": attempts,
            "predicted_gain_bpb": answer.predicted_gain_bpb,
            **taken(context),
        }
        return Proposal(
            hypothesis=answer.hypothesis,
            edits=("".join(diffs_of(context.files, answer.files)),),
            proposer=self.name,
            detail=detail,
        )

    def _refusal(self, context: Context, hypothesis: str, attempts: int, refused: str) -> Proposal:
        return Proposal(
            hypothesis=hypothesis,
            edits=(),
            proposer=self.name,
            detail={"attempts": attempts, UNUSABLE: True, **taken(context)},
            refused=f"no usable edit in {attempts} replies; the last: {refused}",
        )
