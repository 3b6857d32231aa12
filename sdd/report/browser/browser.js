// What there is, what is picked, and the keys.

const key = (m, s, p, t, q) => [m, s, p, t, q].join("|");
const cells = new Map(data.cells.map((c) => [key(c.m, c.s, c.p, c.t, c.q), c]));
const unique = (values) => [...new Set(values)];
const state = { method: 0, seed: 0, split: 0, step: 0, prompt: 0, show: "all", search: "" };
const view = { rows: [], drawn: 0, cell: null, group: null };

const fits = (c, ...names) =>
  names.every((n) => c[{ method: "m", seed: "s", split: "p", step: "t" }[n]] === state[n]);

function textOf(rollout) {
  if (rollout.text === undefined) rollout.text = rollout[2].map((i) => data.pieces[i]).join("");
  return rollout.text;
}

const has = (text, search) => text.toLowerCase().includes(search);

function says(rollout, search) {
  if (rollout.lower === undefined) rollout.lower = textOf(rollout).toLowerCase();
  return rollout.lower.includes(search);
}

function matches(cell) {
  const search = state.search;
  if (!search) return true;
  const prompt = data.prompts[cell.q];
  if (has(prompt.id, search) || has(prompt.text, search)) return true;
  return cell.r.some((r) => says(r, search));
}

/** Selects a rollout: its path in the picture, and its numbers. */
function choose(row, button) {
  for (const other of list.querySelectorAll('[aria-pressed="true"]')) other.setAttribute("aria-pressed", "false");
  if (button) button.setAttribute("aria-pressed", "true");
  const drawing = data.prompts[view.cell.q].drawing;
  const figure = part("figure");
  figure.hidden = !drawing;
  if (drawing) {
    const [, , , , path, added] = row ? row.rollout : [];
    figure.replaceChildren(...picture(drawing, added, path));
  }
  const chosen = part("chosen");
  chosen.replaceChildren();
  if (!row || !row.rollout[3]) return;
  const coded = row.rollout[3];
  const values = row.rollout[2].map((_, i) => logpAt(coded, i));
  if (!values.length) return;
  const least = values.indexOf(Math.min(...values));
  const total = values.reduce((sum, x) => sum + x, 0);
  addText(chosen, `${values.length} tokens, ${nats(total)} together; least likely: `);
  const token = element("bdi", "");
  addText(token, data.pieces[row.rollout[2][least]].trim() || "(no text)");
  chosen.append(token, `, ${percent(values[least])}`);
}

function showCell() {
  const cell = cells.get(key(state.method, state.seed, state.split, state.step, state.prompt));
  const focused = list.contains(document.activeElement);
  list.replaceChildren();
  part("prompt").replaceChildren();
  part("figure").hidden = true;
  part("chosen").replaceChildren();
  view.cell = cell;
  if (!cell) {
    part("status").textContent = "No prompt or rollout matches.";
    return;
  }
  const training = data.splits[state.split] === data.train;
  const steps = training ? [] : data.cells.filter((c) => fits(c, "method", "seed", "split")).map((c) => c.t);
  view.first = Math.min(...steps);
  const before = view.first < state.step && cells.get(key(state.method, state.seed, state.split, view.first, state.prompt));
  view.before = before ? counted(before) : null;
  view.total = before ? before.of.length : 0;
  view.rows = rowsOf(cell);
  view.drawn = 0;
  list.classList.toggle("ro-taught", !!(cell.by || cell.reads));
  drawMore();
  const prompt = data.prompts[cell.q];
  addText(part("prompt"), prompt.text);
  const first = view.rows.find((row) => row.rollout);
  choose(first, first && first.button);
  const right = cell.of.filter((i) => cell.r[i][0]).length;
  const ways = new Set(cell.of.map((i) => cell.r[i]).filter((r) => r[0] && r[1] >= 0).map((r) => r[1]));
  let text = `${prompt.id}: ${right} of ${cell.of.length} right, ${ways.size} ${ways.size === 1 ? "strategy" : "strategies"} among them`;
  if (cell.of.length < cell.n) text += `; the first ${cell.of.length} of ${cell.n} rollouts`;
  if (view.before) {
    const lost = [...view.before].filter(([s, [ok]]) => s >= 0 && ok && !ways.has(s)).map(([s]) => strategyName(s));
    if (lost.length) text += `; right at step ${view.first} and not here: ${lost.join(", ")}`;
  }
  part("status").textContent = visible(text) + ".";
  if (focused) list.focus({ preventScroll: true });
  remember();
}

function refresh() {
  const seeds = unique(data.cells.filter((c) => fits(c, "method")).map((c) => c.s)).sort((a, b) => a - b);
  const trains = (p) => data.splits[p] === data.train;
  const splits = unique(data.cells.filter((c) => fits(c, "method")).map((c) => c.p));
  splits.sort((a, b) => trains(a) - trains(b) || a - b);
  if (!seeds.includes(state.seed)) state.seed = seeds[0];
  if (!splits.includes(state.split)) state.split = splits[0];
  const steps = unique(data.cells.filter((c) => fits(c, "method", "seed", "split")).map((c) => c.t));
  steps.sort((a, b) => a - b);
  if (!steps.includes(state.step)) state.step = steps[steps.length - 1];
  const here = data.cells.filter((c) => fits(c, "method", "seed", "split", "step") && matches(c));
  const prompts = here.map((c) => c.q);
  if (!prompts.includes(state.prompt)) state.prompt = prompts.length ? prompts[0] : -1;
  const methods = unique(data.cells.map((c) => c.m)).sort((a, b) => a - b);
  fill(pickers.method, methods.map((m) => [m, data.methods[m][1]]), state.method);
  fill(pickers.seed, seeds.map((s) => [s, String(s)]), state.seed);
  pickers.seed.parentElement.hidden = unique(data.cells.map((c) => c.s)).length < 2;
  const named = (p) => (trains(p) ? "training batch" : data.splits[p]);
  fill(pickers.split, splits.map((p) => [p, named(p)]), state.split);
  fill(pickers.step, steps.map((t) => [t, String(t)]), state.step);
  fill(pickers.prompt, prompts.map((q) => [q, data.prompts[q].id.slice(0, PRINTED)]), state.prompt);
  pickers.show.value = state.show;
  showCell();
}

function turn(by) {
  const options = [...pickers.prompt.options].map((o) => Number(o.value));
  const next = options[options.indexOf(state.prompt) + by];
  if (next === undefined) return;
  state.prompt = next;
  pickers.prompt.value = next;
  showCell();
}

// A page that is loaded again, as a live one is, shows the same rollouts; where storage is closed, the first.
const PLACE = "sdd rollouts";
function remember() {
  try {
    sessionStorage.setItem(PLACE, JSON.stringify(state));
  } catch {
    // not allowed here
  }
}
function recall() {
  try {
    const old = JSON.parse(sessionStorage.getItem(PLACE)) || {};
    for (const name of ["method", "seed", "split", "step", "prompt"]) {
      if (Number.isInteger(old[name])) state[name] = old[name];
    }
  } catch {
    // not allowed here
  }
  if (!data.cells.some((c) => fits(c, "method"))) state.method = data.cells[0].m;
}

// ---- begin --------------------------------------------------------------------------------------------

for (const name of ["method", "seed", "split", "step", "prompt"]) {
  pickers[name].addEventListener("change", () => {
    state[name] = Number(pickers[name].value);
    if (name === "prompt") showCell();
    else refresh();
  });
}
pickers.show.addEventListener("change", () => {
  state.show = pickers.show.value;
  showCell();
});
pickers.search.addEventListener("input", () => {
  state.search = pickers.search.value.trim().toLowerCase();
  refresh();
});
for (const button of section.querySelectorAll("[data-turn]")) {
  button.addEventListener("click", () => turn(Number(button.dataset.turn)));
}
section.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
  const onList = event.target === list;
  const by = { j: 1, k: -1, ...(onList ? { ArrowRight: 1, ArrowLeft: -1 } : {}) }[event.key];
  if (!by) return;
  event.preventDefault();
  turn(by);
});
// Other parts of the page can show rollouts here: detail is {method, seed, split, step, prompt}, by name.
document.addEventListener("sdd:rollouts", (event) => {
  const { method, seed, split, step, prompt } = event.detail || {};
  const found = data.cells.find(
    (c) =>
      (method === undefined || data.methods[c.m][0] === method) &&
      (seed === undefined || c.s === seed) &&
      (split === undefined || data.splits[c.p] === split) &&
      (step === undefined || c.t === step) &&
      (prompt === undefined || data.prompts[c.q].id === prompt),
  );
  if (!found) return;
  Object.assign(state, { method: found.m, seed: found.s, split: found.p, step: found.t, prompt: found.q });
  state.search = pickers.search.value = "";
  refresh();
  section.scrollIntoView();
  list.focus({ preventScroll: true });
});
const legend = part("legend");
NAMES.forEach((name, level) => legend.append(element("span", level ? "ro-s" + level : "", name)));
legend.hidden = !data.cells.some((c) => c.r.some((r) => r[3]));
// The last method at its last step, on the first split and prompt.
Object.assign(state, { method: Math.max(...data.cells.map((c) => c.m)), seed: -1, split: -1, step: -1, prompt: -1 });
recall();
part("app").hidden = false;
refresh();
