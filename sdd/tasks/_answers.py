"""What is looked for in a response: the thinking, the reasoning, the answer in its tags."""


def after_thinking(text: str) -> str:
    """What follows the last ``</think>``; the whole text without one."""
    return text.rpartition("</think>")[2]


def tagged_answer(text: str) -> str | None:
    """What stands after the last ``<answer>``, up to ``</answer>``, stripped; None without the tag."""
    _, tag, rest = text.rpartition("<answer>")
    return rest.partition("</answer>")[0].strip() if tag else None


def reasoning(text: str) -> str:
    """A response without its final answer and tags: what its strategy is told by."""
    before, tag, _ = text.rpartition("<answer>")
    kept = before if tag else text
    for tag in ("think", "reasoning"):
        kept = kept.replace(f"<{tag}>", "").replace(f"</{tag}>", "")
    return kept.strip()
