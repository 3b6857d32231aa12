// The rollouts of a prompt: groups by strategy, rows, and who taught them.

const ROWS = 40; // rollouts, and
const SPANS = 1500; // tokens that are drawn at a time

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
