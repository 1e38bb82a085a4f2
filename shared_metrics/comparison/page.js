"use strict";
// Names out of a log: without those that every object of JavaScript has.
const plain = (_, value) => value instanceof Object && !Array.isArray(value)
  ? Object.assign(Object.create(null), value) : value;
const curves = JSON.parse(document.getElementById("data").textContent, plain);
const COLORS = 8;
const root = document.documentElement;

// ---- light and dark

const dark = matchMedia("(prefers-color-scheme: dark)");
const setTheme = name => { root.dataset.theme = name; };
setTheme(dark.matches ? "dark" : "light");
dark.addEventListener("change", () => setTheme(dark.matches ? "dark" : "light"));
document.getElementById("theme").addEventListener("click", () =>
  setTheme(root.dataset.theme === "dark" ? "light" : "dark"));

function say(text) {
  const line = document.getElementById("said");
  line.textContent = text;
  line.classList.add("on");
  clearTimeout(say.timer);
  say.timer = setTimeout(() => line.classList.remove("on"), 1600);
}

// ---- the command of a run

async function copy(button) {
  const code = button.parentNode.querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    say("Copied");
  } catch {  // a page from a file may not: select it, the user copies
    getSelection().selectAllChildren(code);
    say(document.execCommand("copy") ? "Copied" : "Selected: press Ctrl+C");
  }
}

// ---- sorting: inside the groups that compare, never across them

function compare(a, b, down) {
  if (a.value === null || b.value === null) return (a.value === null) - (b.value === null);
  const sign = typeof a.value === "string" ? a.value.localeCompare(b.value) : a.value - b.value;
  return down ? -sign : sign;
}

function sort(head) {
  const table = head.closest("table");
  const column = [...head.parentNode.children].indexOf(head);
  const button = head.querySelector("button");
  const first = button.dataset.better === "1" ? "descending" : "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  const order = head.getAttribute("aria-sort") === first ? other : first;
  const rows = [...table.tBodies].map(body => {
    const cell = body.rows[0].cells[column];
    const text = cell.dataset.value;
    const value = text === undefined ? null : button.dataset.sort === "run" ? text : Number(text);
    return {body, value, group: text === undefined ? "~~" : cell.dataset.group || ""};
  });
  const rank = group => group.length * 1000 + (group.startsWith("~") ? 1e6 : 0) + group.charCodeAt(0);
  rows.sort((a, b) => a.group === b.group ? compare(a, b, order === "descending")
    : (a.group ? rank(a.group) : 0) - (b.group ? rank(b.group) : 0));
  rows.forEach((row, i) => {
    row.body.classList.toggle("cut", i > 0 && row.group !== rows[i - 1].group);
    table.append(row.body);
  });
  for (const th of head.parentNode.querySelectorAll("[aria-sort]")) th.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", order);
}

// ---- curves

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 1120, HEIGHT = 300, LEFT = 56, RIGHT = 26, TOP = 12, BOTTOM = 28;

function svg(name, attributes, parent) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (parent) parent.append(element);
  return element;
}

function html(name, text, parent, css) {
  const element = document.createElement(name);
  if (text) element.textContent = text;
  if (css) element.className = css;
  if (parent) parent.append(element);
  return element;
}

function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(m => m * power).find(s => s >= rough);
  const values = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-9; v += step) values.push(v);
  return values;
}

const short = value => Math.abs(value) >= 1e4 ? value.toLocaleString("en", {notation: "compact"})
  : Number(value.toPrecision(4)).toLocaleString("en", {maximumSignificantDigits: 4});
const SCORES = /fid|^is$|^is_|accuracy|judge|score|kid|miou|^fd|l1|spread|held_out/i;

class Chart {
  constructor(section) {
    this.section = section;
    this.place = section.querySelector(".curves");
    this.bodies = [...section.querySelectorAll("tbody[data-run]")];
    const names = new Set(this.bodies.flatMap(body => Object.keys(curves[body.dataset.run])));
    if (!names.size) return;
    html("h3", "Losses and scores", this.place);
    const chart = html("div", "", this.place, "chart");
    const choices = html("div", "", chart, "choices");
    this.select = this.menu(choices, [...names]);
    this.hours = false;
    const group = html("div", "", choices, "scales");
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", "Along");
    this.axes = ["Iterations", "Hours"].map(title => {
      const button = html("button", title, group);
      button.type = "button";
      button.addEventListener("click", () => { this.hours = title === "Hours"; this.draw(); });
      return button;
    });
    this.svg = svg("svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", tabindex: 0}, chart);
    this.read = html("div", "", chart, "read");
    this.svg.addEventListener("pointermove", event => this.point(event.clientX));
    this.svg.addEventListener("keydown", event => this.key(event));
    this.draw();
  }

  menu(parent, names) {
    const label = html("label", "Curve", parent);
    const select = html("select", "", label);
    for (const [title, wanted] of [["Scores", true], ["Losses", false]]) {
      const own = names.filter(name => SCORES.test(name) === wanted).sort();
      if (!own.length) continue;
      const group = html("optgroup", "", select);
      group.label = title;
      for (const name of own) html("option", name, group).value = name;
    }
    // The one that most runs have, a score before a loss.
    const runs = name => this.bodies.filter(body => name in curves[body.dataset.run]).length;
    select.value = [...select.options].map(option => option.value)
      .reduce((best, name) => runs(name) > runs(best) ? name : best);
    select.addEventListener("change", () => this.draw());
    return select;
  }

  lines() {
    const lines = [];
    for (const body of this.bodies) {
      const points = curves[body.dataset.run][this.select.value];
      if (!points || !body.querySelector("input").checked) continue;
      const own = points.map(p => [this.hours ? p[1] : p[0], p[2]]).filter(p => p[0] !== null);
      const name = [...body.querySelectorAll(".more > *")].map(part => part.textContent).join(" ");
      if (own.length) lines.push({points: own, color: body.style.getPropertyValue("--run"), name});
    }
    return lines;
  }

  draw() {
    if (!this.select) return;
    this.axes.forEach((button, i) => button.setAttribute("aria-pressed", this.hours === (i === 1)));
    this.svg.replaceChildren();
    this.read.replaceChildren();
    this.shown = this.lines();
    const axis = this.hours ? "hours" : "iterations";
    this.svg.setAttribute("aria-label", `${this.select.value} over ${axis}, ${this.shown.length} runs`);
    if (!this.shown.length) {
      html("span", this.hours ? "The logs of these runs do not tell the time: look along iterations."
        : "None of the chosen runs has this curve.", this.read);
      this.svg.setAttribute("viewBox", `0 0 ${WIDTH} 40`);
      return;
    }
    this.svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    const all = this.shown.flatMap(line => line.points);
    const [x0, x1] = this.range(all.map(p => p[0]), 0);
    const [y0, y1] = this.range(all.map(p => p[1]), 0.05);
    this.x = v => LEFT + (v - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT);
    this.y = v => HEIGHT - BOTTOM - (v - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM);
    for (const v of ticks(y0, y1, 5)) {
      svg("line", {x1: LEFT, x2: WIDTH - RIGHT, y1: this.y(v), y2: this.y(v), class: "grid"}, this.svg);
      svg("text", {x: LEFT - 9, y: this.y(v) + 4, "text-anchor": "end"}, this.svg).textContent = short(v);
    }
    for (const v of ticks(x0, x1, 8)) {
      svg("text", {x: this.x(v), y: HEIGHT - 8, "text-anchor": "middle"}, this.svg).textContent = short(v);
    }
    for (const line of this.shown) {
      const way = line.points.map((p, i) => `${i ? "L" : "M"}${this.x(p[0]).toFixed(1)} ${this.y(p[1]).toFixed(1)}`);
      svg("path", {d: way.join(""), class: "line", style: `--run:${line.color}`}, this.svg);
      if (line.points.length < 30) for (const p of line.points) {
        svg("circle", {cx: this.x(p[0]), cy: this.y(p[1]), r: 3, style: `--run:${line.color}`}, this.svg);
      }
    }
    this.cursor = svg("line", {y1: TOP, y2: HEIGHT - BOTTOM, x1: -9, x2: -9, class: "cursor"}, this.svg);
    this.xs = [...new Set(all.map(p => p[0]))].sort((a, b) => a - b);
    this.at(this.xs.length - 1);
  }

  range(values, margin) {
    const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
    const room = (high - low) * margin || (high === low ? Math.abs(high) * 0.1 || 1 : 0);
    return [low - room, high + room];
  }

  at(index) {
    this.index = Math.max(0, Math.min(this.xs.length - 1, index));
    const v = this.xs[this.index];
    this.cursor.setAttribute("x1", this.x(v));
    this.cursor.setAttribute("x2", this.x(v));
    this.read.replaceChildren();
    html("span", this.hours ? `${v.toFixed(2)} h` : `iteration ${v.toLocaleString("en")}`, this.read);
    for (const line of this.shown.slice(0, 12)) {
      const near = line.points.reduce((a, b) => Math.abs(b[0] - v) < Math.abs(a[0] - v) ? b : a);
      const item = html("span", "", this.read);
      html("b", "", item).style.setProperty("--run", line.color);
      item.append(`${line.name} ${short(near[1])}`);
    }
  }

  point(clientX) {
    if (!this.shown.length) return;
    const box = this.svg.getBoundingClientRect();
    const x = (clientX - box.left) / box.width * WIDTH;
    const nearest = this.xs.reduce((best, v, i) =>
      Math.abs(this.x(v) - x) < Math.abs(this.x(this.xs[best]) - x) ? i : best, 0);
    this.at(nearest);
  }

  key(event) {
    const step = {ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20}[event.key];
    if (!step || !this.shown.length) return;
    event.preventDefault();
    this.at(this.index + step);
  }
}

// ---- which runs are shown, and how large

for (const section of document.querySelectorAll(".set")) {
  const bodies = [...section.querySelectorAll("tbody[data-run]")];
  bodies.forEach((body, i) => {
    const color = `var(--c${i % COLORS})`;
    body.style.setProperty("--run", color);
    for (const part of section.querySelectorAll(`[data-of="${body.dataset.run}"]`)) {
      part.style.setProperty("--run", color);
    }
  });
  const chart = new Chart(section);
  section.addEventListener("change", event => {
    if (event.target.type !== "checkbox") return;
    const run = event.target.closest("tbody").dataset.run;
    for (const part of section.querySelectorAll(`[data-of="${run}"]`)) part.hidden = !event.target.checked;
    chart.draw();
  });
  section.addEventListener("click", event => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.sort) sort(button.closest("th"));
    if (button.classList.contains("copy")) copy(button);
    if (button.classList.contains("more")) {
      const details = document.getElementById(button.getAttribute("aria-controls"));
      details.hidden = !details.hidden;
      button.setAttribute("aria-expanded", String(!details.hidden));
    }
    if (button.dataset.scale) scale(section, Number(button.dataset.scale));
  });
  scale(section, 1);
}

function scale(section, factor) {
  for (const figure of section.querySelectorAll("figure")) {
    const image = figure.querySelector("img");
    image.style.width = `${Math.round(figure.dataset.width * factor)}px`;
    image.style.imageRendering = factor > 1 ? "pixelated" : "auto";
  }
  for (const button of section.querySelectorAll("[data-scale]")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.scale) === factor));
  }
}
