// The grid: only the rows near the window are in the document, whatever the number of items. The grid itself has the
// focus; the active item is told by aria-activedescendant.
'use strict';
joyedit.grid = (() => {
  const { make, by } = joyedit;
  const GAP = 16;
  const AHEAD = 400; // pixels above and below the window that are kept ready
  let box;
  let order = [];   // the items that are shown, in order
  let rows = [];    // { top, height, from, to } or { top, height, head, group }
  let labels = new Map();
  let place = new Map(); // item -> its place in order
  let columns = 1;
  let active = 0;
  let size = { card: 220, frame: 165 };
  const shown = new Map(); // number of a row -> its element

  function begin(open) {
    box = by('grid');
    box.addEventListener('click', (event) => {
      const card = event.target.closest('.card');
      if (!card) return;
      setActive(Number(card.dataset.at), false);
      if (event.target.closest('.star')) star(order[active]);
      else open(order[active]);
    });
    box.addEventListener('pointermove', scrub);
    box.addEventListener('pointerleave', () => unscrub());
    addEventListener('scroll', () => draw(), { passive: true });
    new ResizeObserver(() => layout()).observe(box);
  }

  // Show these items; with `groups` as sweeps. The active item stays if it is among them.
  function show(items, groups) {
    const before = order[active];
    labels = new Map();
    order = items;
    if (groups) {
      order = groups.flatMap((group) => group.items);
      groups.forEach((group) => group.labels.forEach((label, item) => labels.set(item, label)));
    }
    place = new Map(order.map((item, at) => [item, at]));
    joyedit.grid.groups = groups || null;
    active = Math.max(0, before ? place.get(before) ?? 0 : 0);
    layout();
  }

  function layout() {
    const width = box.clientWidth;
    if (!width) return;
    const wanted = width < 560 ? 160 : 236;
    columns = Math.max(width < 560 ? 2 : 1, Math.floor((width + GAP) / (wanted + GAP)));
    const card = Math.floor((width - (columns - 1) * GAP) / columns);
    size = { card, frame: Math.round(card * 0.78) };
    const height = size.frame + 74;
    rows = [];
    let top = 0;
    const cards = (from, to) => {
      for (let at = from; at < to; at += columns) {
        rows.push({ top, height, from: at, to: Math.min(at + columns, to) });
        top += height + GAP;
      }
    };
    if (joyedit.grid.groups) {
      let from = 0;
      for (const group of joyedit.grid.groups) {
        rows.push({ top, height: 44, head: group.text, group });
        top += 44 + 8;
        for (const row of group.rows) {
          if (row.name) {
            rows.push({ top, height: 22, head: row.name, isRow: true });
            top += 22 + 6;
          }
          cards(from, from + row.items.length);
          from += row.items.length;
        }
        top += 16;
      }
    } else cards(0, order.length);
    box.style.setProperty('--card', `${size.card}px`);
    box.style.setProperty('--frame', `${size.frame}px`);
    box.style.height = `${Math.max(0, top - GAP)}px`;
    for (const element of shown.values()) discard(element);
    shown.clear();
    draw();
  }

  // A picture without its link gives its memory back at once, not at some later time.
  function discard(element) {
    for (const image of element.querySelectorAll('img')) image.removeAttribute('src');
    if (spare.length < 100) spare.push(...element.querySelectorAll('.card'));
    element.remove();
  }

  function firstRow(y) {
    let [low, high] = [0, rows.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (rows[middle].top + rows[middle].height < y) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  function draw() {
    const start = -box.getBoundingClientRect().top;
    const end = start + innerHeight + AHEAD;
    const first = firstRow(start - AHEAD);
    let last = first;
    while (last < rows.length && rows[last].top < end) last += 1;
    for (const [number, element] of shown) {
      if (number < first || number >= last) {
        discard(element);
        shown.delete(number);
      }
    }
    for (let number = first; number < last; number += 1) {
      if (!shown.has(number)) {
        const element = drawRow(rows[number]);
        shown.set(number, element);
        box.append(element);
      }
    }
    tellActive();
    const now = performance.now();
    const speed = Math.abs(start - lastStart) / Math.max(1, now - lastDraw); // pixels a millisecond
    [lastStart, lastDraw] = [start, now];
    clearTimeout(hurried);
    if (speed < 6) fill();
    else hurried = setTimeout(fill, 80);
  }
  let [lastStart, lastDraw] = [0, 0];

  function drawRow(row) {
    const element = make('div', row.head === undefined ? 'row' : row.isRow ? 'row head-row' : 'row head');
    element.setAttribute('role', 'presentation');
    element.style.transform = `translateY(${row.top}px)`;
    if (row.head !== undefined) {
      const text = make('span', 'head-text', row.head);
      text.dir = 'auto';
      element.append(text);
      if (row.group) element.append(make('span', 'muted', `${row.group.items.length} items, by ${row.group.axes.join(' and ')}`));
    } else {
      for (let at = row.from; at < row.to; at += 1) element.append(drawCard(order[at], at));
    }
    return element;
  }

  // Cards that went out of sight are used again: scrolling makes little garbage.
  const spare = [];
  function newCard() {
    const card = make('div');
    card.setAttribute('role', 'option');
    const frame = make('div', 'frame');
    const pair = make('div', 'pair');
    frame.append(pair, make('div', 'badges'));
    const line = make('div', 'card-line');
    const mark = make('span', 'star');
    mark.setAttribute('aria-hidden', 'true');
    line.append(make('bdi', 'card-id'), mark);
    const text = make('p', 'card-text');
    text.dir = 'auto';
    for (const kind of ['after', 'before']) {
      const image = make('img', kind);
      image.alt = '';
      image.decoding = 'async';
      image.draggable = false;
      image.hidden = true;
      image.onerror = () => { image.hidden = true; settle(pair, 'picture gone'); };
      pair.append(image);
    }
    pair.append(make('span', 'nothing'));
    card.append(frame, line, text);
    return card;
  }

  function drawCard(item, at) {
    const card = spare.pop() || newCard();
    card.className = item.bad ? 'card bad' : 'card';
    card.id = `card-${item.n}`;
    card.dataset.at = at;
    card.setAttribute('aria-setsize', order.length);
    card.setAttribute('aria-posinset', at + 1);
    const [frame, line, text] = card.children;
    const [pair, badge] = frame.children;
    fit(pair, item);
    const [after, before, nothing] = pair.children;
    after.hidden = !item.after && !joyedit.picture(item);
    before.hidden = !item.before;
    nothing.hidden = !after.hidden || !before.hidden;
    nothing.textContent = item.in ? 'no preview' : 'no picture';
    settle(pair, nothing.textContent);
    badge.replaceChildren(...badges(item).map(([kind, said]) => make('span', `badge ${kind}`, said)));
    const name = line.children[0];
    name.textContent = labels.get(item) || item.show || item.id;
    name.title = item.show || item.id;
    text.textContent = item.bad ? item.why || item.text : labels.has(item) ? item.show || item.id : item.text;
    paint(card, item);
    return card;
  }

  function settle(pair, said) {
    const [after, before, nothing] = pair.children;
    pair.classList.toggle('alone', after.hidden);
    nothing.hidden = !(after.hidden && before.hidden);
    nothing.textContent = said;
  }

  // The pictures of the rows that are shown; not while rows rush by.
  let hurried = 0;
  function fill() {
    for (const element of shown.values()) {
      for (const card of element.querySelectorAll('.card')) fillCard(card, order[Number(card.dataset.at)]);
    }
  }
  function fillCard(card, item) {
    const [after, before] = card.querySelector('.pair').children;
    // Until its small copy is made, the browser scales the finished picture itself.
    link(after, item.after ? joyedit.path(item.after) : joyedit.picture(item));
    const isLarge = after.hidden || document.body.classList.contains('show-before') || card.querySelector('.scrub');
    link(before, item.before && joyedit.path(isLarge ? item.before : item.before.replace('/s-', '/t-')));
  }
  function link(image, address) {
    if (address && !image.hidden && image.getAttribute('src') !== address) image.src = address;
  }

  // The largest rectangle of the item's shape in the frame.
  function fit(pair, item) {
    const [width, height] = item.size || [4, 3];
    const scale = Math.min(size.card / width, size.frame / height);
    pair.style.width = `${Math.max(8, Math.floor(width * scale))}px`;
    pair.style.height = `${Math.max(8, Math.floor(height * scale))}px`;
    pair.style.setProperty('--fit', item.fit || 'cover');
  }

  function badges(item) {
    const found = [];
    if (item.bad) found.push(['fail', item.code]);
    if (item.off) found.push(['warn', 'changed']);
    if (item.sec > joyedit.choice.facts.slow) found.push(['slow', joyedit.seconds(item.sec)]);
    if (joyedit.choice.drift(item) > joyedit.choice.facts.drift) found.push(['warn', `moved ${joyedit.choice.drift(item).toFixed(0)} px`]);
    return found;
  }

  function paint(card, item) {
    const isMarked = joyedit.marks.has(item);
    card.setAttribute('aria-selected', isMarked);
    card.classList.toggle('marked', isMarked);
    card.querySelector('.star').textContent = isMarked ? '★' : '☆';
    const state = item.bad ? `failed, ${item.code}` : 'done';
    card.setAttribute('aria-label', `${item.show || item.id}, ${state}${isMarked ? ', starred' : ''}. ${item.text}`);
  }

  function repaint() {
    for (const element of shown.values()) {
      for (const card of element.querySelectorAll('.card')) paint(card, order[Number(card.dataset.at)]);
    }
  }

  function tellActive() {
    for (const card of box.querySelectorAll('.card.active')) card.classList.remove('active');
    const item = order[active];
    const card = item && by(`card-${item.n}`);
    if (card) {
      card.classList.add('active');
      box.setAttribute('aria-activedescendant', card.id);
    } else box.removeAttribute('aria-activedescendant');
  }

  function setActive(at, scroll = true) {
    if (!order.length) return;
    active = Math.max(0, Math.min(order.length - 1, at));
    if (scroll) {
      const number = rows.findIndex((row) => row.from <= active && active < row.to);
      const row = rows[number];
      const top = box.getBoundingClientRect().top + row.top;
      const under = by('bar').getBoundingClientRect().bottom + GAP;
      if (top < under) scrollBy(0, top - under);
      else if (top + row.height > innerHeight - GAP) scrollBy(0, top + row.height - innerHeight + GAP);
      draw();
    }
    tellActive();
  }

  // Moves by rows keep the column, over the heads between.
  function move(key) {
    if (key === 'ArrowLeft') setActive(active - 1);
    if (key === 'ArrowRight') setActive(active + 1);
    if (key === 'Home') setActive(0);
    if (key === 'End') setActive(order.length - 1);
    const cards = rows.filter((row) => row.head === undefined);
    const here = cards.findIndex((row) => row.from <= active && active < row.to);
    const page = Math.max(1, Math.floor((innerHeight - 200) / (size.frame + 74 + GAP)));
    const by = { ArrowUp: -1, ArrowDown: 1, PageUp: -page, PageDown: page }[key];
    if (by && here >= 0) {
      const row = cards[Math.max(0, Math.min(cards.length - 1, here + by))];
      setActive(Math.min(row.to - 1, row.from + active - cards[here].from));
    }
  }

  function star(item) {
    joyedit.marks.toggle(item);
    repaint();
  }

  // Under the mouse, a picture is uncovered from its left: what it was before.
  let scrubbed = null;
  function scrub(event) {
    const pair = event.pointerType === 'mouse' ? event.target.closest('.pair') : null;
    if (pair !== scrubbed) unscrub();
    if (!pair || [...pair.querySelectorAll('img')].some((image) => image.hidden)) return;
    scrubbed = pair;
    const { left, width } = pair.getBoundingClientRect();
    pair.classList.add('scrub');
    const card = pair.closest('.card');
    fillCard(card, order[Number(card.dataset.at)]);
    pair.style.setProperty('--cut', `${Math.max(0, Math.min(100, ((event.clientX - left) / width) * 100)).toFixed(1)}%`);
  }
  function unscrub() {
    if (scrubbed) scrubbed.classList.remove('scrub');
    scrubbed = null;
  }

  return {
    begin, show, draw, fill, repaint, move, star, setActive, groups: null,
    active: () => order[active], at: () => active, order: () => order, has: (item) => place.has(item), placeOf: (item) => place.get(item),
  };
})();
