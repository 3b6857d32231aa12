// Texts and tokens. Every text of a run reaches the page as a text node, never as markup.

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const PER_NAT = 200;
const SHADES = [0.05, 0.22, 0.51, 0.92, 1.61, 2.3, 3.91]; // nats: 95, 80, 60, 40, 20, 10, 2 %
const NAMES = ["95 to 100 %", "80", "60", "40", "20", "10", "2", "less"];
const TOKENS = 400; // tokens of a rollout that are drawn at once
const LABEL = 12; // characters of a node
const PRINTED = 40; // characters of an option
// What acts on a terminal, reorders or hides text, and halves of characters.
const HIDDEN = new RegExp(
  "[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u00ad\\u061c\\u180e\\u200b\\u200e\\u200f\\u2028-\\u202e" +
    "\\u2060-\\u206f\\ufeff\\ufff0-\\ufffb]|[\\ud800-\\udbff](?![\\udc00-\\udfff])|" +
    "(?<![\\ud800-\\udbff])[\\udc00-\\udfff]|\\udb40[\\udc00-\\udfff]",
  "g",
);
const ANY = new RegExp(HIDDEN.source);

function element(name, css, ...children) {
  const made = document.createElement(name);
  if (css) made.className = css;
  made.append(...children);
  return made;
}

function escaped(match) {
  const point = match.codePointAt(0);
  if (point < 256) return "\\x" + point.toString(16).padStart(2, "0");
  return point < 65536 ? "\\u" + point.toString(16).padStart(4, "0") : "\\U" + point.toString(16).padStart(8, "0");
}

const visible = (text) => text.replace(HIDDEN, escaped);

function addText(parent, text) {
  if (!ANY.test(text)) {
    parent.append(text);
    return;
  }
  let end = 0;
  for (const match of text.matchAll(HIDDEN)) {
    parent.append(text.slice(end, match.index), element("span", "ro-code", escaped(match[0])));
    end = match.index + match[0].length;
  }
  parent.append(text.slice(end));
}

function fill(select, entries, value) {
  const options = entries.map(([code, text]) => {
    const option = element("option", "", visible(text));
    option.value = code;
    return option;
  });
  select.replaceChildren(...options);
  select.value = value;
}

const logpAt = (coded, i) =>
  -(DIGITS.indexOf(coded[2 * i]) * 64 + DIGITS.indexOf(coded[2 * i + 1])) / PER_NAT;

function shade(logp) {
  const found = SHADES.findIndex((limit) => -logp <= limit);
  return found < 0 ? SHADES.length : found;
}

const percent = (logp) => {
  const p = 100 * Math.exp(logp);
  return p >= 99.95 ? "100 %" : p >= 1 ? p.toFixed(0) + " %" : p >= 0.01 ? p.toFixed(2) + " %" : "below 0.01 %";
};
const nats = (logp) => logp.toFixed(2).replace("-", "−") + " nats";

/** The tokens of a rollout from `from` on, shaded; returns where it ended. */
function addTokens(parent, rollout, from, count) {
  const pieces = rollout[2];
  const coded = rollout[3];
  const end = Math.min(pieces.length, from + count);
  for (let i = from; i < end; i++) {
    const piece = data.pieces[pieces[i]];
    if (!coded) {
      addText(parent, piece);
      continue;
    }
    const logp = logpAt(coded, i);
    const level = shade(logp);
    const span = element("span", level ? "ro-s" + level : "");
    span.title = percent(logp) + ", " + nats(logp);
    addText(span, piece);
    parent.append(span);
  }
  return end;
}

function tokens(rollout) {
  const text = element("bdi", "ro-text");
  const end = addTokens(text, rollout, 0, TOKENS);
  if (end < rollout[2].length) {
    const more = element("button", "", `… ${rollout[2].length - end} more tokens`);
    more.type = "button";
    more.addEventListener("click", () => {
      more.remove();
      addTokens(text, rollout, end, rollout[2].length);
    });
    text.append(more);
  }
  return text;
}

const strategyName = (number) => (number < 0 ? "no strategy" : data.strategies[number]);
