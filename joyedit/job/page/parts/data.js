// The data of the page: what its data files give, and the loading of more of them. A page from the disk may fetch
// nothing, so data comes as scripts that call joyedit.take.
'use strict';
const joyedit = (() => {
  const items = [];          // one object for each item, in the order of the run
  const waiting = new Map(); // what is being loaded -> [promise, resolve]
  const details = new Map(); // number of a file -> its details; only the last few
  const MOST_DETAILS = 4;

  function take(kind, number, text) {
    const data = JSON.parse(text);
    if (kind === 'run') joyedit.run = data;
    else if (kind === 'items') takeItems(number, data);
    else if (kind === 'more') details.set(number, data);
    const one = waiting.get(kind + number);
    if (one) { waiting.delete(kind + number); one.resolve(true); }
  }

  function takeItems(number, data) {
    if (number !== joyedit.loaded) return; // twice the same file
    joyedit.loaded += 1;
    data.rows.forEach((row, at) => {
      row.text = data.texts[row.text];
      row.n = items.length;
      row.file = number;
      row.at = at;
      items.push(row);
    });
  }

  function load(kind, number) {
    const known = waiting.get(kind + number);
    if (known) return known.promise;
    const one = {};
    one.promise = new Promise((resolve) => { one.resolve = resolve; });
    waiting.set(kind + number, one);
    const script = document.createElement('script');
    script.src = `${joyedit.run.files}/${kind}-${joyedit.run.mark}-${number}.js`;
    script.onerror = () => { waiting.delete(kind + number); one.resolve(false); };
    script.onload = () => script.remove();
    document.head.append(script);
    return one.promise;
  }

  // Details of an item; null where their file is gone.
  async function detailsOf(item) {
    if (!details.has(item.file)) await load('more', item.file);
    const file = details.get(item.file);
    if (!file) return null;
    details.delete(item.file); // to the end: the last used
    details.set(item.file, file);
    while (details.size > MOST_DETAILS) details.delete(details.keys().next().value);
    return file[item.at] || null;
  }

  const path = (name) => `${joyedit.run.files}/${name}`;

  // What a browser can show of the finished picture, as large as there is; empty if there is nothing.
  function picture(item) {
    if (!item.raw) return item.out || '';
    return item.view || item.after ? path(item.view || item.after) : '';
  }

  return { run: null, loaded: 0, items, take, load, detailsOf, path, picture };
})();

// Small helpers. All text goes through textContent: nothing that came from a run is ever read as HTML.
joyedit.make = (tag, className, text) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined && text !== null) element.textContent = text;
  return element;
};
joyedit.by = (id) => document.getElementById(id);
joyedit.number = (value) => value.toLocaleString('en');
joyedit.seconds = (value) => {
  if (value === null || value === undefined) return '';
  if (value < 0.0995) return `${value.toFixed(3)} s`;
  if (value < 10) return `${value.toFixed(2)} s`;
  if (value < 60) return `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
};
