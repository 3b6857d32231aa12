"""Chat templates: Jinja in a sandbox, with the extras that Hugging Face's transformers gives its templates.

A template is written by whoever made the model, so it runs in Jinja's immutable sandbox. What comes out
equals ``tokenizer.apply_chat_template(..., tokenize=False)`` of transformers, byte by byte.
"""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sdd import lookup
from sdd.text.files import first_line, package

SWITCHES = ("enable_thinking", "tools", "documents")  # may be given to any template; some ignore them
_GIVEN = ("messages", "add_generation_prompt", "strftime_now")  # no options: every template gets them
_PROBE = "Does the system turn show?"
_USER = {"role": "user", "content": "Hello"}

Message = Mapping[str, Any]
"""A turn: ``role`` (system, user, assistant), ``content``, and what else the template reads."""


class Template(NamedTuple):
    """A template that is ready to be rendered.

    Attributes:
      where: the file that it came from, for errors.
      compiled: the ``jinja2.Template``.
      variables: names of the options that it reads.
      folds_system: it has no system turn; see :func:`fold_system`.
    """

    where: str
    compiled: Any
    variables: frozenset[str]
    folds_system: bool


def compile_template(text: str, where: str, special_tokens: Mapping[str, str]) -> Template:
    """Returns the template of a text.

    Whether it has a system turn is found out by trying: a template without one raises an error, or
    leaves the system's text out.

    Args:
      text: in Jinja's language.
      where: the file that it came from, for errors.
      special_tokens: of the tokenizer, by role: templates read ``bos_token`` and so on.

    Raises:
      ValueError: `text` is not Jinja, or cannot render even one user turn; the line names file and line.
    """
    jinja2 = package("jinja2", where)
    environment = _environment()
    try:
        compiled = environment.from_string(text)
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(f"{where}: line {error.lineno}: {first_line(error)}; valid: Jinja") from None
    from jinja2 import meta

    names = meta.find_undeclared_variables(environment.parse(text))
    variables = frozenset(names - environment.globals.keys() - set(_GIVEN))
    template = Template(where, compiled, variables, folds_system=False)
    try:
        tried = render(template, [{"role": "system", "content": _PROBE}, _USER], special_tokens)
    except ValueError:
        tried = ""
    if _PROBE in tried:
        return template
    render(template, [_USER], special_tokens)  # else the template is in error, not without a system turn
    return template._replace(folds_system=True)


def render(template: Template, messages: Sequence[Message], variables: Mapping[str, Any]) -> str:
    """Returns the text of a conversation, as the template writes it.

    Args:
      template: of :func:`compile_template`.
      messages: the turns.
      variables: what the template may read beside them; ``add_generation_prompt`` is True unless said.

    Raises:
      ValueError: no turns, a turn without a role, or the template raised an error; the line names it.
    """
    turns = _plain(messages)
    if template.folds_system:
        turns = fold_system(turns)
    given = {"add_generation_prompt": True, "tools": None, "documents": None, **variables}
    given.setdefault("strftime_now", lambda form: datetime.datetime.now().strftime(form))
    try:
        return template.compiled.render(messages=turns, **given)
    except Exception as error:  # the template is somebody else's program
        line = _line_of(error)
        raise ValueError(f"{template.where}: line {line}: {first_line(error)}") from None


def check_options(template: Template, options: Mapping[str, Any]) -> None:
    """Raises ValueError in one line for an option that the template does not read: it would do nothing."""
    for name in options:
        if name not in template.variables and name not in SWITCHES:
            known = sorted({*template.variables, *SWITCHES})
            raise ValueError(
                f"{template.where}: the template reads no {name!r}{lookup.nearest(name, known)}; "
                f"valid: {', '.join(known)}"
            )


def fold_system(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Returns the turns with the system's text in front of the first user turn, a blank line between.

    So does the template of Gemma 3; that of Gemma 2 refuses a system turn.

    Raises:
      ValueError: a system turn that no user turn follows, or contents that are no text.
    """
    first, *rest = [dict(message) for message in messages]
    if first["role"] != "system":
        return [first, *rest]
    if not rest or rest[0]["role"] != "user":
        raise ValueError("messages: a system turn, and no user turn after it to take its text; valid: one")
    contents = [first.get("content"), rest[0].get("content")]
    if not all(isinstance(content, str) for content in contents):
        raise ValueError("messages: the content of a system or user turn is no text; valid: str")
    rest[0]["content"] = "\n\n".join(content for content in contents if content)
    return rest


def _plain(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Copies of the turns, without what is None: templates would print it."""
    if isinstance(messages, (str, Mapping)) or not messages:
        raise ValueError(f"messages: {messages!r:.60}; valid: a list of turns, at least one")
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise ValueError(f"messages[{i}]: no role; valid: a dict with role and content")
    return [{key: value for key, value in message.items() if value is not None} for message in messages]


def _line_of(error: BaseException) -> int:
    """The line of the template that raised; Jinja writes it into the traceback."""
    frame, line = error.__traceback__, 0
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == "<template>":
            line = frame.tb_lineno
        frame = frame.tb_next
    return line


def _environment() -> Any:
    """Jinja as transformers sets it up (transformers/utils/chat_template_utils.py)."""
    import jinja2
    import jinja2.ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        """``{% generation %}`` marks what the model wrote, for training; it leaves the text as it is."""

        tags = {"generation"}  # noqa: RUF012  (Jinja reads it so)

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            # A call block, not the body alone: what is set inside stays inside, as in transformers.
            return jinja2.nodes.CallBlock(self.call_method("_same"), [], [], body).set_lineno(line)

        def _same(self, caller: Any) -> str:
            return caller()

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        # Jinja's own filter escapes what HTML cannot hold.
        return json.dumps(
            value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    return environment
