// The rollout browser. Every text of a run reaches the page as a text node, never as markup.
(() => {
  "use strict";
  const section = document.getElementById("rollouts");
  const source = document.getElementById("rollout-data");
  if (!section || !source || !source.textContent.trim()) return;
  const data = JSON.parse(source.textContent);
  if (!data.cells.length) return;

  const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const PER_NAT = 200;
  const SHADES = [0.05, 0.22, 0.51, 0.92, 1.61, 2.3, 3.91]; // nats: 95, 80, 60, 40, 20, 10, 2 %
  const NAMES = ["95 to 100 %", "80", "60", "40", "20", "10", "2", "less"];
  const ROWS = 40; // rollouts, and
  const SPANS = 1500; // tokens that are drawn at a time
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

  const pickers = {};
  for (const field of section.querySelectorAll("[data-pick]")) pickers[field.dataset.pick] = field;
  const part = (name) => section.querySelector(".ro-" + name);
  const list = part("list");

  // ---- what there is ------------------------------------------------------------------------------------

  const key = (m, s, p, t, q) => [m, s, p, t, q].join("|");
  const cells = new Map(data.cells.map((c) => [key(c.m, c.s, c.p, c.t, c.q), c]));
  const unique = (values) => [...new Set(values)];
  const state = { method: 0, seed: 0, split: 0, step: 0, prompt: 0, show: "all", search: "", row: -1 };
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

  // ---- small pieces of the page -------------------------------------------------------------------------

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

  // ---- groups and rows ----------------------------------------------------------------------------------

  /** Counts of right and wrong samples, by strategy. */
  function counted(cell) {
    const groups = new Map();
    for (const i of cell.of) {
      const [right, strategy] = cell.r[i];
      if (!groups.has(strategy)) groups.set(strategy, [0, 0]);
      groups.get(strategy)[right ? 0 : 1] += 1;
    }
    return groups;
  }

  /** Headings and rollouts in the order in which they are shown. */
  function rowsOf(cell) {
    const samples = cell.r.map(() => []);
    cell.of.forEach((rollout, sample) => samples[rollout].push(sample));
    const search = state.search;
    const told = search && cell.r.some((r) => says(r, search));
    const wanted = (r) =>
      (state.show === "all" || (state.show === "right") === !!r[0]) && (!told || says(r, search));
    const taught = cell.by || cell.reads;
    const counts = counted(cell);
    const order = [...counts.keys()].sort(
      (a, b) => (a < 0) - (b < 0) || counts.get(b)[0] - counts.get(a)[0] || counts.get(b)[1] - counts.get(a)[1],
    );
    const numbers = cell.r.map((_, i) => i).filter((i) => wanted(cell.r[i]));
    const bySize = (a, b) => cell.r[b][0] - cell.r[a][0] || samples[b].length - samples[a].length || a - b;
    const rows = [];
    for (const strategy of order) {
      const inside = numbers.filter((i) => cell.r[i][1] === strategy).sort(bySize);
      if (!inside.length) continue;
      rows.push({ heading: strategy, counts: counts.get(strategy) });
      for (const i of inside) {
        // Equal rollouts are one row, but where each has teachers of its own.
        const each = taught ? samples[i].map((sample) => [sample]) : [samples[i]];
        for (const these of each) rows.push({ rollout: cell.r[i], samples: these, number: these[0] });
      }
    }
    return rows;
  }

  function heading(row) {
    const [right, wrong] = row.counts;
    const before = view.before && view.before.get(row.heading);
    const made = element("h4", "");
    addText(made, strategyName(row.heading));
    let text = ` ${right} right, ${wrong} wrong`;
    if (view.before) text += ` (at step ${view.first}: ${before ? before[0] : 0} right of ${view.total})`;
    made.append(element("small", "", text));
    return made;
  }

  function rowElement(row) {
    const [right] = row.rollout;
    const button = element("button", right ? "ro-right" : "ro-wrong", right ? "✓ right" : "✗ wrong");
    button.type = "button";
    button.append(row.samples.length > 1 ? ` × ${row.samples.length}` : ` #${row.samples[0]}`);
    button.title = "sample " + row.samples.slice(0, 20).join(", ") + (row.samples.length > 20 ? ", ..." : "");
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => choose(row, button));
    const made = element("div", "ro-row", button, tokens(row.rollout));
    made.setAttribute("role", "listitem");
    if (view.cell.by || view.cell.reads) made.append(teachersOf(row.samples[0]));
    row.button = button;
    return made;
  }

  /** What the teacher of a training rollout was shown. */
  function teachersOf(sample) {
    const cell = view.cell;
    const made = element("div", "ro-by");
    if (cell.reads) {
      for (const k of cell.reads[sample]) {
        const text = element("bdi", "ro-text");
        addText(text, cell.read[k]);
        made.append("its teacher read", text);
      }
      return made;
    }
    if (!cell.by[sample].length) made.append("no demonstration");
    for (const k of cell.by[sample]) {
      if (k >= 0 && k >= cell.of.length) {
        made.append(`demonstration #${k}, not in this page`);
        continue;
      }
      const rollout = k >= 0 ? cell.r[cell.of[k]] : cell.others[-1 - k];
      const where = k >= 0 ? `#${k}` : "of another prompt";
      const mark = rollout[0] ? "✓" : "✗ wrong";
      made.append(`${mark} demonstration ${where}, `);
      addText(made, strategyName(rollout[1]));
      made.append(tokens(rollout));
    }
    return made;
  }

  function drawMore() {
    const fragment = document.createDocumentFragment();
    let spans = 0;
    const end = Math.min(view.rows.length, view.drawn + ROWS);
    while (view.drawn < end && spans < SPANS) {
      const row = view.rows[view.drawn++];
      if (row.rollout) {
        spans += Math.min(row.rollout[2].length, TOKENS);
        view.group.append(rowElement(row));
        continue;
      }
      view.group = element("div", "");
      view.group.setAttribute("role", "list");
      fragment.append(heading(row), view.group);
      view.group.setAttribute("aria-label", visible(strategyName(row.heading)));
    }
    const old = list.querySelector(".ro-more");
    if (old) old.remove();
    list.append(fragment);
    const left = view.rows.slice(view.drawn).filter((row) => row.rollout).length;
    if (!left) return;
    const more = element("button", "ro-more", `Show more (${left} left)`);
    more.type = "button";
    more.addEventListener("click", () => {
      const first = view.drawn;
      drawMore();
      const next = view.rows.slice(first).find((row) => row.button);
      if (next) next.button.focus({ preventScroll: true });
    });
    list.append(more);
    if (watcher) watcher.observe(more);
  }

  // Rows come when their place comes into view.
  const watcher =
    "IntersectionObserver" in window &&
    new IntersectionObserver((entries) => {
      if (entries.some((e) => e.isIntersecting && e.target.isConnected)) drawMore();
    });

  // ---- the picture --------------------------------------------------------------------------------------

  function svg(name, attributes, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
    made.append(...children);
    return made;
  }

  function marker(id, css) {
    const shape = { id, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto" };
    return svg("marker", { ...shape, markerUnits: "userSpaceOnUse" }, svg("path", { d: "M0 0 8 4 0 8z", class: css }));
  }

  const KINDS = ["start", "goal", "dead", "stray"];

  function picture(drawing, added, path) {
    const nodes = [...drawing.nodes, ...(added || [])];
    const columns = new Set(drawing.nodes.map((n) => n[1])).size;
    const rows = new Set(nodes.map((n) => n[2])).size;
    const half = 5 + 3.5 * Math.max(...nodes.map((n) => Math.min(visible(n[0]).length, LABEL)));
    const width = Math.max(400, columns * (2 * half + 24));
    const height = 30 * rows + 10;
    const bottom = Math.max(...nodes.map((n) => n[2])) || 1;
    const place = (n) => [half + 2 + n[1] * (width - 2 * half - 4), 14 + (n[2] / bottom) * (height - 28)];
    const line = (a, b, css, head) => {
      const [x1, y1] = place(nodes[a]);
      const [x2, y2] = place(nodes[b]);
      // It ends at the border of the node.
      const part = Math.min((half + 1) / Math.abs(x2 - x1 || 1e-9), 11 / Math.abs(y2 - y1 || 1e-9), 1);
      const end = { x2: x2 - (x2 - x1) * part, y2: y2 - (y2 - y1) * part };
      return svg("line", { x1, y1, ...end, class: css, "marker-end": `url(#${head})` });
    };
    const edges = new Set(drawing.edges.map(([a, b]) => a + ">" + b));
    const steps = (path || []).slice(1).map((b, i) => [path[i], b]);
    const broken = steps.filter(([a, b]) => !edges.has(a + ">" + b));
    const on = new Set(path || []);
    const boxes = nodes.map((n, i) => {
      const [x, y] = place(n);
      const label = visible(n[0]);
      const text = svg("text", { x, y: y + 4 }, label.length > LABEL ? label.slice(0, LABEL - 1) + "…" : label);
      const css = (KINDS.includes(n[3]) ? "ro-" + n[3] : "") + (on.has(i) ? " ro-on" : "");
      const box = svg("rect", { x: x - half, y: y - 10, width: 2 * half, height: 20, rx: 4 });
      return svg("g", { class: css }, svg("title", {}, label), box, text);
    });
    const name = (i) => visible(nodes[i][0]);
    let words = visible(drawing.text);
    if (path) words += ". Path: " + path.map(name).join(" → ");
    if (broken.length) words += ". No edge: " + broken.map(([a, b]) => name(a) + " → " + name(b)).join(", ");
    const heads = [
      marker("ro-head", "ro-head"),
      marker("ro-step-head", "ro-step-head"),
      marker("ro-broken-head", "ro-broken-head"),
    ];
    const shown = svg(
      "svg",
      { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": words },
      svg("defs", {}, ...heads),
      ...drawing.edges.map(([a, b]) => line(a, b, "ro-edge", "ro-head")),
      ...steps.map(([a, b]) => {
        const whole = edges.has(a + ">" + b);
        return line(a, b, whole ? "ro-step" : "ro-broken", whole ? "ro-step-head" : "ro-broken-head");
      }),
      ...boxes,
    );
    return [shown, element("figcaption", "", words)];
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

  // ---- one look -----------------------------------------------------------------------------------------

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
})();
