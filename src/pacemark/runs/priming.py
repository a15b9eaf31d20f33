"""What is seen to before anything is measured: that the API can say what was ordered, and what prompts share."""

from __future__ import annotations

from collections.abc import Callable

from pacemark.dialects.bodies import Bodies, takes_messages
from pacemark.errors import BadInput, RunFailed
from pacemark.scenario import Workload
from pacemark.trace import Exchange
from pacemark.workload.synthetic import Synthetic
from pacemark.workload.words import Prompts

__all__ = ["primed", "refuse_conversation"]


def primed(
    workload: Workload,
    prompts: Prompts,
    template: bytes,
    ask: Callable[[bytes], Exchange],
    tell: Callable[[str], None],
) -> frozenset[int]:
    """Send each prefix once, one after the other; gives their origins. Raises RunFailed where one is not answered."""
    source = Synthetic(workload, prompts, Bodies(template), min(16, workload.output.typical))
    groups = workload.prefix_groups
    tell(f"sending each of {groups} prefixes of {workload.prefix_tokens:,} tokens once (--prime)")
    for group in range(groups):
        answer = ask(source.primer(group).body)
        if answer.error and answer.error != "empty":
            raise RunFailed(f"prefix {group + 1} of {groups} was not answered ({answer.error}): {answer.detail}")
    return frozenset(range(groups))


def refuse_conversation(workload: Workload, template: bytes, api: str) -> None:
    """Raise BadInput where conversations were ordered of an API that has none."""
    if workload.turns != 1 and not takes_messages(template):
        raise BadInput(f"--turns needs an API of messages, which {api} is not: use --api chat, responses or messages")
