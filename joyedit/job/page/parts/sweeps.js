// Sweeps: items with the same pictures and instruction that differ in settings. They stand side by side, ordered by
// what differs; where two settings differ, one of them makes the rows.
'use strict';
joyedit.sweeps = (() => {
  const AXES = [['seed', 'seed'], ['steps', 'steps'], ['guide', 'guidance'], ['base', 'base size'], ['lora', 'LoRA'], ['neg', 'negative']];

  // What an item has on each axis, also on those that its run names.
  function placeOf(item) {
    const place = new Map();
    for (const [key, name] of AXES) if (item[key] !== undefined) place.set(name, item[key]);
    for (const [name, value] of item.axes || []) if (!place.has(name)) place.set(name, value);
    return place;
  }

  function compare(a, b) {
    const [x, y] = [Number(a), Number(b)];
    if (!Number.isNaN(x) && !Number.isNaN(y) && a !== '' && b !== '') return x - y;
    return String(a ?? '').localeCompare(String(b ?? ''), 'en', { numeric: true });
  }

  // The groups of at least two items, in the order in which they first come.
  function groupsOf(items) {
    const groups = new Map();
    for (const item of items) {
      if (!groups.has(item.group)) groups.set(item.group, []);
      groups.get(item.group).push(item);
    }
    return [...groups.values()].filter((group) => group.length > 1).map(groupOf).filter((group) => group.axes.length);
  }

  function groupOf(items) {
    const places = new Map(items.map((item) => [item, placeOf(item)]));
    const values = new Map();
    for (const place of places.values()) {
      for (const [name, value] of place) {
        if (!values.has(name)) values.set(name, new Set());
        values.get(name).add(value);
      }
    }
    // The setting with the most values makes the columns.
    const axes = [...values].filter(([, set]) => set.size > 1).sort((a, b) => b[1].size - a[1].size).map(([name]) => name);
    const [column, ...others] = axes;
    const rowOf = (item) => others.map((name) => `${name} ${places.get(item).get(name) ?? '-'}`).join(', ');
    const sorted = [...items].sort((a, b) => {
      for (const name of [...others, column]) {
        const order = compare(places.get(a).get(name), places.get(b).get(name));
        if (order) return order;
      }
      return a.n - b.n;
    });
    const rows = [];
    for (const item of sorted) {
      const name = rowOf(item);
      if (!rows.length || rows[rows.length - 1].name !== name) rows.push({ name, items: [] });
      rows[rows.length - 1].items.push(item);
    }
    const labels = new Map(sorted.map((item) => [item, `${column} ${places.get(item).get(column) ?? '-'}`]));
    return { items: sorted, axes, rows, labels, text: items[0].text };
  }

  // Whether there is anything to show: told from the first items, so that the button comes early.
  function isThere(items) {
    const first = new Map();
    for (const item of items) {
      const other = first.get(item.group);
      if (other === undefined) first.set(item.group, item);
      else if (AXES.some(([key]) => other[key] !== item[key]) || item.axes) return true;
    }
    return false;
  }
  return { groupsOf, isThere };
})();
