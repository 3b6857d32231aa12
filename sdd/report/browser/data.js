// The section and its data; without either there is nothing to do.

const section = document.getElementById("rollouts");
const source = document.getElementById("rollout-data");
if (!section || !source || !source.textContent.trim()) return;
const data = JSON.parse(source.textContent);
if (!data.cells.length) return;

const pickers = {};
for (const field of section.querySelectorAll("[data-pick]")) pickers[field.dataset.pick] = field;
const part = (name) => section.querySelector(".ro-" + name);
const list = part("list");
