// The task's picture of a prompt, with the path of a rollout.

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
