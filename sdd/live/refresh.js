
(() => {
  "use strict";
  const KEY = "sdd-live", EVERY = 3000;
  const bar = document.getElementById("sdd-live");
  bar.style.cssText = "position:fixed;right:.5rem;bottom:.5rem;max-width:90vw;padding:.2rem .6rem;z-index:99;" +
    "border-radius:.4rem;background:#222c;color:#fff;font:13px/1.5 system-ui,sans-serif";
  bar.textContent = "sdd watch";

  // Fields by id, or by their place among those of the same kind.
  const fields = () => {
    const count = {}, found = new Map();
    for (const field of document.querySelectorAll("input, select, textarea, details")) {
      const kind = field.tagName + (field.type || "");
      count[kind] = (count[kind] || 0) + 1;
      found.set(field.id ? kind + "#" + field.id : kind + count[kind], field);
    }
    return found;
  };
  const read = (field) => field.tagName === "DETAILS" ? field.open
    : field.type === "checkbox" || field.type === "radio" ? field.checked
    : field.multiple ? [...field.selectedOptions].map((option) => option.value) : field.value;
  const write = (field, value) => {
    if (field.tagName === "DETAILS") { field.open = value; return; }
    if (field.type === "file" || JSON.stringify(read(field)) === JSON.stringify(value)) return;
    if (field.type === "checkbox" || field.type === "radio") field.checked = value;
    else if (field.multiple) for (const option of field.options) option.selected = value.includes(option.value);
    else if (field.tagName !== "SELECT" || [...field.options].some((option) => option.value === value))
      field.value = value;
    for (const type of ["input", "change"]) field.dispatchEvent(new Event(type, { bubbles: true }));
  };
  const save = () => {
    const values = [...fields()].map(([key, field]) => [key, read(field)]);
    sessionStorage.setItem(KEY, JSON.stringify({ x: scrollX, y: scrollY, values, at: document.activeElement?.id }));
  };
  const restore = () => {
    const text = sessionStorage.getItem(KEY);
    sessionStorage.removeItem(KEY);
    if (!text) return;
    const saved = JSON.parse(text), known = fields();
    for (const [key, value] of saved.values) if (known.has(key)) write(known.get(key), value);
    if (saved.at) document.getElementById(saved.at)?.focus({ preventScroll: true });
    let moved = false;  // by the reader, who then is where they want to be
    for (const type of ["wheel", "touchmove", "keydown", "pointerdown"])
      addEventListener(type, () => { moved = true; }, { once: true, passive: true });
    // Figures may be drawn after this, and lengthen the page.
    for (const wait of [0, 100, 400, 1000]) setTimeout(() => { if (!moved) scrollTo(saved.x, saved.y); }, wait);
  };
  const busy = () => /^(INPUT|TEXTAREA)$/.test(document.activeElement?.tagName || "") &&
    !/^(checkbox|radio|button)$/.test(document.activeElement.type) || !getSelection().isCollapsed;

  const look = async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch("version", { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.status);
      const { version, status } = await answer.json();
      bar.textContent = status;
      if (version !== bar.dataset.version && !busy()) { save(); location.reload(); }
    } catch {
      bar.textContent = "sdd watch has ended; this page stays as it is";
    }
  };
  if (document.readyState === "complete") restore(); else addEventListener("load", restore);
  setInterval(look, EVERY);
  document.addEventListener("visibilitychange", look);
  look();
})();
