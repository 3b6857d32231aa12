// Draws the figures of the page with Vega-Lite and filters figures and tables. Expressions are interpreted
// (`ast`), so the page needs no eval; texts of files reach the document as text only.
(function () {
  "use strict";
  const root = document.documentElement;
  const page = JSON.parse(document.getElementById("report-data").textContent);
  const views = new Map();
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const all = (selector) => Array.from(document.querySelectorAll(selector));
  const boxes = all("input.method");
  const split = document.getElementById("split");
  const themeButton = document.getElementById("theme");
  const status = document.getElementById("status");

  // ---- what the reader chose, kept over a reload of the page -------------------------------------------
  const key = "sdd-report " + location.pathname;
  function remembered(store, name) {
    try { return JSON.parse(store().getItem(name)); } catch (error) { return null; } // storage may be forbidden
  }
  function remember(store, name, value) {
    try { store().setItem(name, JSON.stringify(value)); } catch (error) { /* then it is not kept */ }
  }
  const local = () => window.localStorage, session = () => window.sessionStorage;
  const chosen = Object.assign({ hidden: [], split: "", parameters: {} }, remembered(session, key));

  function theme() {
    const set = root.getAttribute("data-theme");
    return set ? set === "dark" : dark.matches;
  }
  function setTheme(name) {
    if (name) root.setAttribute("data-theme", name); else root.removeAttribute("data-theme");
    themeButton.setAttribute("aria-pressed", String(theme()));
  }

  // ---- data -------------------------------------------------------------------------------------------
  function records(packed) {
    const names = Object.keys(packed);
    const columns = names.map((name) => {
      const column = packed[name];
      return column.levels ? column.codes.map((code) => column.levels[code]) : column;
    });
    return (columns[0] || []).map((_, i) => Object.fromEntries(names.map((name, j) => [name, columns[j][i]])));
  }
  function withData(spec, name) {
    return Object.assign({}, structuredClone(spec), { datasets: { [name]: records(page.datasets[name]) } });
  }

  // ---- figures ----------------------------------------------------------------------------------------
  function config() {
    const style = getComputedStyle(root);
    const color = (name) => style.getPropertyValue(name).trim();
    const text = { labelColor: color("--fg"), titleColor: color("--fg") };
    return {
      background: "transparent", font: "system-ui, Liberation Sans, Arial, sans-serif", aria: false,
      axis: Object.assign({ gridColor: color("--line"), domainColor: color("--edge"), tickColor: color("--edge") }, text),
      header: { labelColor: color("--fg") }, legend: text, title: { color: color("--fg") }, text: { color: color("--fg") },
    };
  }
  function merged(base, over) {
    const out = Object.assign({}, base);
    for (const [name, value] of Object.entries(over)) {
      out[name] = value && typeof value === "object" && out[name] ? Object.assign({}, out[name], value) : value;
    }
    return out;
  }
  const options = { mode: "vega-lite", ast: true, actions: false, defaultStyle: false, logLevel: 1 }; // errors only
  async function draw(place) {
    const name = place.dataset.figure;
    const label = place.getAttribute("aria-label");
    const spec = withData(page.figures[name].live, name);
    spec.config = merged(spec.config, config());
    for (const parameter of spec.params) {
      const value = parameters()[parameter.name];
      if (value !== undefined) parameter.value = value;
    }
    if (views.has(name)) views.get(name).finalize();
    const renderer = page.datasets[name].text ? "canvas" : "svg"; // a point a prompt is too much for SVG
    const tooltip = { theme: theme() ? "dark" : "light" };
    views.set(name, await window.vegaEmbed(place, spec, Object.assign({ renderer, tooltip }, options)));
    for (const svg of place.querySelectorAll("svg")) svg.setAttribute("aria-hidden", "true");
    place.setAttribute("role", "img"); // one image with a description; vega would have it a document of marks
    place.setAttribute("aria-label", label);
    place.removeAttribute("aria-roledescription");
  }
  // One after the other, those in view first: a study of many methods has much to draw.
  let last = Promise.resolve();
  function enqueue(places) {
    for (const place of places) last = last.then(() => draw(place));
    last = last.then(() => root.setAttribute("data-drawn", views.size + (theme() ? " dark" : " light")));
    return last;
  }
  const near = new IntersectionObserver((entries) => {
    const seen = entries.filter((entry) => entry.isIntersecting).map((entry) => entry.target);
    for (const place of seen) near.unobserve(place);
    if (seen.length) enqueue(seen);
  }, { rootMargin: "50%" });
  function drawWaiting() { // what has not been in view yet
    const waiting = all("[data-figure]").filter((place) => !views.has(place.dataset.figure));
    for (const place of waiting) near.unobserve(place);
    return enqueue(waiting);
  }
  function redraw() {
    return enqueue(all("[data-figure]").filter((place) => views.has(place.dataset.figure)));
  }
  function parameters() {
    const splits = Array.from(split.options).map((option) => option.value).filter(Boolean);
    return Object.assign({}, chosen.parameters, {
      shown: boxes.filter((box) => box.checked).map((box) => box.value),
      splits: split.value ? [split.value] : splits,
    });
  }
  async function filter() {
    const values = parameters();
    for (const row of all("tr[data-method]")) row.hidden = !values.shown.includes(row.dataset.method);
    for (const row of all("tr[data-split]")) row.hidden = row.hidden || !values.splits.includes(row.dataset.split);
    const count = values.shown.length + " of " + boxes.length + " methods shown";
    status.textContent = count + (split.value ? ", split " + split.value : "");
    remember(session, key, chosen);
    for (const { view } of views.values()) {
      for (const [name, value] of Object.entries(values)) {
        try { view.signal(name, value); } catch (error) { /* this figure has no such parameter */ }
      }
      await view.runAsync();
    }
    root.setAttribute("data-filtered", JSON.stringify([values.shown.length, values.splits.length]));
  }

  // ---- downloads --------------------------------------------------------------------------------------
  function save(name, content, type) {
    const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
    const link = document.createElement("a");
    link.href = url;
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }
  async function saveFigure(name, kind) {
    const spec = withData(page.figures[name].paper, name);
    const values = parameters();
    for (const parameter of spec.params) {
      if (values[parameter.name] !== undefined) parameter.value = values[parameter.name];
    }
    const { view } = await window.vegaEmbed(document.createElement("div"), spec, Object.assign({ renderer: "svg" }, options));
    if (kind === "svg") {
      save(name + ".svg", await view.toSVG(), "image/svg+xml");
    } else {
      const canvas = await view.toCanvas(2.4);
      canvas.toBlob((blob) => save(name + ".png", blob));
    }
    view.finalize();
  }

  // ---- controls ---------------------------------------------------------------------------------------
  function check(state) {
    for (const box of boxes) box.checked = state;
    changed();
  }
  function changed() {
    chosen.hidden = boxes.filter((box) => !box.checked).map((box) => box.value);
    chosen.split = split.value;
    filter();
  }
  for (const box of boxes) {
    box.checked = !chosen.hidden.includes(box.value);
    box.addEventListener("change", changed);
  }
  split.value = chosen.split;
  if (split.selectedIndex < 0) split.value = "";
  split.addEventListener("change", changed);
  document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("all-methods").addEventListener("click", () => check(true));
  document.getElementById("none-methods").addEventListener("click", () => check(false));
  for (const select of all("select.parameter")) {
    const name = select.dataset.parameter;
    const before = select.value;
    if (chosen.parameters[name] !== undefined) select.value = chosen.parameters[name];
    if (select.selectedIndex < 0) { select.value = before; delete chosen.parameters[name]; }
    select.addEventListener("change", () => { chosen.parameters[name] = select.value; filter(); });
  }
  for (const button of all("[data-save]")) {
    button.addEventListener("click", () => saveFigure(button.dataset.save, button.dataset.kind));
  }
  for (const button of all("[data-table]")) {
    const kind = button.dataset.kind;
    button.addEventListener("click", () => {
      save(button.dataset.table + "." + kind, page.tables[button.dataset.table][kind], "text/plain");
    });
  }
  themeButton.addEventListener("click", () => {
    setTheme(theme() ? "light" : "dark");
    remember(local, "sdd-theme", root.getAttribute("data-theme"));
    redraw();
  });
  dark.addEventListener("change", () => { setTheme(root.getAttribute("data-theme")); redraw(); });
  window.addEventListener("beforeprint", drawWaiting);

  setTheme(remembered(local, "sdd-theme"));
  filter();
  for (const place of all("[data-figure]")) near.observe(place);
})();
