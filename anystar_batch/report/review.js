"use strict";
// One page, no network: shows an instance after the other, keeps what is said of them, saves it.
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const items = data.items;
const byLabel = new Map(items.map((item) => [item.label, item]));
const KEY = `${data.format} ${data.fingerprint}`;
const NEW = { answer: null, missed: false };

let answers = new Map(); // label -> {answer, missed}
let past = []; // what was there before each change, for undo
let at = 0;
let isKept = true; // whether the browser keeps answers
let isSaved = true;

function read() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) || "[]");
    answers = new Map(kept.filter(([label, one]) => isAnswer({ label, ...one })));
    localStorage.setItem(KEY, JSON.stringify([...answers]));
  } catch {
    isKept = false;
  }
}

function keep() {
  try {
    localStorage.setItem(KEY, JSON.stringify([...answers]));
  } catch {
    isKept = false;
  }
}

function isAnswer(one) {
  return Boolean(one) && Number.isInteger(one.label) && typeof one.missed === "boolean"
    && (one.answer === null || data.kinds.includes(one.answer));
}

const of = (item) => answers.get(item.label) || NEW;
const isDone = (item) => of(item).answer !== null;
const listed = (list) => items.filter((item) => item.list === list);

function change(label, to) {
  past.push([label, answers.get(label), at]);
  if (to.answer === null && !to.missed) answers.delete(label);
  else answers.set(label, to);
  isSaved = false;
  keep();
}

function say(text) {
  $("status").textContent = text;
}

function answer(kind) {
  const item = items[at];
  change(item.label, { answer: kind, missed: of(item).missed });
  const words = data.words[kind];
  const left = listed(item.list).filter((one) => !isDone(one)).length;
  const whole = item.list === "sample"
    ? "The random sample is done: save now, or go on with the worst first."
    : "The worst are done: save.";
  say(left ? `Instance ${item.label}: ${words}.` : `Instance ${item.label}: ${words}. ${whole}`);
  if (at < items.length - 1) at += 1;
  show();
}

function miss() {
  const item = items[at];
  change(item.label, { answer: of(item).answer, missed: !of(item).missed });
  say(of(item).missed ? "Missed next to it. Now say what it is itself." : "Nothing missed next to it.");
  show();
}

function undo() {
  const last = past.pop();
  if (!last) return say("Nothing to undo.");
  const [label, before, where] = last;
  if (before) answers.set(label, before);
  else answers.delete(label);
  isSaved = false;
  at = where;
  keep();
  say(`Instance ${label}: taken back.`);
  return show();
}

function go(step) {
  at = Math.min(Math.max(at + step, 0), items.length - 1);
  say("");
  show();
}

function start(list) {
  const first = items.findIndex((item) => item.list === list && !isDone(item));
  at = first >= 0 ? first : items.findIndex((item) => item.list === list);
  say("");
  show();
}

function outlines() {
  const isBare = $("planes").classList.toggle("bare");
  $("outlines").setAttribute("aria-pressed", String(!isBare));
}

function save() {
  const said = items.filter((item) => answers.has(item.label));
  const document_ = {
    format: data.format, version: data.version, fingerprint: data.fingerprint, image: data.image,
    label: data.label, seed: data.seed, count: data.count, worst: data.worst,
    saved: new Date().toISOString(),
    answers: said.map((item) => ({ label: item.label, list: item.list, ...of(item) })),
  };
  const blob = new Blob([JSON.stringify(document_, null, 1)], { type: "application/json" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = data.file;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  isSaved = true;
  say(`Saved as ${data.file}, ${said.length} answers. Then: ${data.then}`);
}

async function load(file) {
  let found = null;
  try {
    found = JSON.parse(await file.text());
  } catch {
    found = null;
  }
  if (!found || found.format !== data.format || found.version !== data.version || !Array.isArray(found.answers)) {
    return say(`${file.name} is no file of answers; expected one that this page has saved.`);
  }
  if (found.fingerprint !== data.fingerprint) {
    return say(`${file.name} has answers to another label (made by other options, or of another image); nothing was taken.`);
  }
  const known = found.answers.filter((one) => isAnswer(one) && byLabel.has(one.label));
  for (const one of known) answers.set(one.label, { answer: one.answer, missed: one.missed });
  past = [];
  keep();
  show();
  const others = found.answers.length - known.length;
  return say(`${known.length} answers loaded.` + (others ? ` ${others} are of instances that this page does not show.` : ""));
}

function show() {
  const item = items[at], own = listed(item.list), all = listed("sample"), worst = listed("worst");
  item.planes.forEach(([grey, over], k) => {
    const [below, above] = $("planes").children[k].querySelectorAll("img");
    below.src = grey;
    above.src = over;
  });
  $("what").textContent = `Instance ${item.label}: ${item.said}`;
  $("where").textContent = `${own.indexOf(item) + 1} of ${own.length}`;
  const names = { sample: all, worst };
  for (const [list, ones] of Object.entries(names)) {
    const button = $(list);
    button.disabled = ones.length === 0;
    button.setAttribute("aria-pressed", String(item.list === list));
    button.querySelector(".count").textContent = `${ones.filter(isDone).length} of ${ones.length}`;
  }
  $("bar").max = own.length;
  $("bar").value = own.filter(isDone).length;
  for (const button of document.querySelectorAll("[data-answer]")) {
    const kind = button.dataset.answer;
    button.setAttribute("aria-pressed", String(of(item).answer === kind));
    button.querySelector(".count").textContent = own.filter((one) => of(one).answer === kind).length;
  }
  $("missed").setAttribute("aria-pressed", String(of(item).missed));
  $("missed").querySelector(".count").textContent = own.filter((one) => of(one).missed).length;
  $("undo").disabled = past.length === 0;
  $("previous").disabled = at === 0;
  $("next").disabled = at === items.length - 1;
  $("lost").hidden = isKept;
}

const KEYS = {
  n: miss, 6: miss, u: undo, Backspace: undo, o: outlines, d: save,
  ArrowLeft: () => go(-1), ArrowRight: () => go(1),
};
data.kinds.forEach((kind, k) => {
  KEYS[k + 1] = () => answer(kind);
  KEYS[data.words[kind][0]] = () => answer(kind);
});

document.addEventListener("keydown", (event) => {
  const isUndo = (event.ctrlKey || event.metaKey) && event.key === "z";
  if (!isUndo && (event.ctrlKey || event.metaKey || event.altKey)) return;
  const act = isUndo ? undo : KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act || event.repeat) return;
  event.preventDefault();
  act();
});
for (const button of document.querySelectorAll("[data-answer]")) {
  button.addEventListener("click", () => answer(button.dataset.answer));
}
const CLICKS = {
  missed: miss, undo, outlines, save, previous: () => go(-1), next: () => go(1),
  sample: () => start("sample"), worst: () => start("worst"),
};
for (const [id, act] of Object.entries(CLICKS)) $(id).addEventListener("click", act);
$("load").addEventListener("change", async (event) => {
  if (event.target.files.length) await load(event.target.files[0]);
  event.target.value = ""; // the same file again is a change, too
});
window.addEventListener("beforeunload", (event) => {
  if (!isKept && !isSaved) event.preventDefault();
});

read();
start("sample");
