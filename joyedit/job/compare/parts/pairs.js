// The list of a comparison: only the rows near the window are in the document, whatever the number of items.
'use strict';
joyedit.pairs = (() => {
  const { make, by, items } = joyedit;
  const GAP = 10;
  const AHEAD = 500; // pixels above and below the window that are kept ready
  const NAMES = {
    different: 'different', other_size: 'another size', unreadable: 'not readable', failed_a: 'failed in A', failed_b: 'failed in B',
    failed_both: 'failed in both', only_a: 'only in A', only_b: 'only in B', identical: 'identical',
  };
  const BAD = new Set(['unreadable', 'failed_a', 'failed_b', 'failed_both']);
  const SORTS = [
    ['worst', 'worst PSNR first', null],
    ['ssim', 'worst SSIM first', (one) => one.ssim ?? 2],
    ['lpips', 'worst LPIPS first', (one) => -(one.lpips ?? -1)],
    ['best', 'best first', (one) => -one.n],
    ['name', 'by name', null],
  ];
  const order = [];
  const shown = new Map(); // place -> its element
  let [active, height, frame, state] = [0, 0, 0, 'all'];

  function begin() {
    if (!joyedit.run) return notice('The data of this page is gone: joyedit compare makes it anew.');
    about();
    const has = (key) => items.some((one) => one[key] !== undefined);
    for (const [value, text] of SORTS) {
      if (value === 'lpips' && !has('lpips')) continue;
      const option = make('option', '', text);
      option.value = value;
      by('sort').append(option);
    }
    by('sort').onchange = apply;
    by('query').oninput = apply;
    by('clear').onclick = () => { state = 'all'; by('query').value = ''; chips(); apply(); };
    by('help-button').onclick = () => by('help').showModal();
    by('list').addEventListener('click', (event) => {
      const row = event.target.closest('.pair-row');
      if (!row) return;
      setActive(Number(row.dataset.at), false);
      joyedit.pairsViewer.open(order[active]);
    });
    addEventListener('scroll', draw, { passive: true });
    new ResizeObserver(layout).observe(by('list'));
    document.addEventListener('keydown', key);
    joyedit.pairsViewer.begin();
    chips();
    apply();
    by('list').focus({ preventScroll: true });
    rest();
    return undefined;
  }

  // The other items, one file after the other, while the page is used.
  async function rest() {
    let drawn = performance.now();
    while (joyedit.loaded < joyedit.run.counts.length) {
      if (!await joyedit.load('items', joyedit.loaded)) {
        notice('A part of the data is gone: joyedit compare makes it anew.');
        break;
      }
      if (performance.now() - drawn > 700) { apply(); drawn = performance.now(); }
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    apply();
    document.documentElement.dataset.ready = 'all';
  }

  function notice(text) {
    by('notice').textContent = text;
    by('notice').hidden = false;
  }

  function about() {
    const { run } = joyedit;
    const counts = Object.entries(run.states).filter(([, count]) => count);
    by('summary').append(make('span', '', `A: ${run.a}`), make('span', '', `B: ${run.b}`));
    for (const [name, count] of counts) by('summary').append(make('span', BAD.has(name) ? 'fail' : '', `${joyedit.number(count)} ${NAMES[name]}`));
    const digits = { psnr: [1, ' dB'], ssim: [4, ''], lpips: [4, ''] };
    for (const [name, spread] of Object.entries(run.spreads)) {
      const told = (value) => (value === null ? 'identical' : value.toFixed(digits[name][0]) + digits[name][1]);
      by('spreads').append(make('span', '', `${name.toUpperCase()}: median ${told(spread.median)}, worst 5% ${told(spread.worst_twentieth)}, worst ${told(spread.worst)}`));
    }
    for (const [name, text] of run.settings) by('settings').append(make('dt', '', name.replaceAll('_', ' ')), make('dd', '', text));
    by('settings').hidden = !run.settings.length;
  }

  function chips() {
    const counts = { all: Object.values(joyedit.run.states).reduce((sum, one) => sum + one, 0), ...joyedit.run.states };
    by('chips').replaceChildren(...Object.entries(counts).filter(([, count]) => count).map(([name, count]) => {
      const button = make('button', 'chip', `${NAMES[name] || 'all'} ${joyedit.number(count)}`);
      button.type = 'button';
      button.setAttribute('aria-pressed', name === state);
      button.onclick = () => { state = name; chips(); apply(); };
      return button;
    }));
  }

  function apply() {
    const before = order[active];
    const words = by('query').value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (one) => {
      const text = `${one.id}\n${one.text}\n${one.differ || ''}`.toLowerCase();
      return (state === 'all' || one.state === state) && words.every((word) => text.includes(word));
    };
    order.length = 0;
    for (const one of items) if (fits(one)) order.push(one);
    const sort = SORTS.find(([value]) => value === by('sort').value);
    if (sort && sort[2]) order.sort((one, other) => sort[2](one) - sort[2](other));
    if (sort && sort[0] === 'name') order.sort((one, other) => one.id.localeCompare(other.id, 'en', { numeric: true }));
    active = Math.max(0, order.indexOf(before));
    by('count').textContent = `${joyedit.number(order.length)} of ${joyedit.number(items.length)} items`;
    by('empty').hidden = order.length > 0;
    layout();
  }

  function layout() {
    const width = by('list').clientWidth;
    if (!width) return;
    const isNarrow = innerWidth <= 760;
    const each = isNarrow ? (width - 30) / 4 : (width - Math.min(230, Math.max(150, width * 0.18)) - 60) / 4;
    frame = Math.round(Math.max(60, Math.min(300, each * 0.8)));
    height = frame + 12 + GAP + (isNarrow ? 72 : 0);
    by('list').style.setProperty('--frame', `${frame}px`);
    by('list').style.height = `${Math.max(0, order.length * height)}px`;
    for (const element of shown.values()) discard(element);
    shown.clear();
    draw();
  }

  // A picture without its link gives its memory back at once.
  function discard(element) {
    for (const image of element.querySelectorAll('img')) image.removeAttribute('src');
    element.remove();
  }

  function draw() {
    if (!height) return;
    const start = -by('list').getBoundingClientRect().top;
    const first = Math.max(0, Math.floor((start - AHEAD) / height));
    const last = Math.min(order.length, Math.ceil((start + innerHeight + AHEAD) / height));
    for (const [at, element] of shown) {
      if (at < first || at >= last) { discard(element); shown.delete(at); }
    }
    for (let at = first; at < last; at += 1) {
      if (shown.has(at)) continue;
      const element = drawRow(order[at], at);
      shown.set(at, element);
      by('list').append(element);
    }
    tellActive();
  }

  function drawRow(one, at) {
    const row = make('div', 'pair-row');
    row.id = `row-${one.n}`;
    row.dataset.at = at;
    row.setAttribute('role', 'option');
    row.setAttribute('aria-setsize', order.length);
    row.setAttribute('aria-posinset', at + 1);
    row.setAttribute('aria-label', `${one.id}, ${NAMES[one.state]}, ${figures(one)}`);
    row.style.transform = `translateY(${at * height}px)`;
    const text = make('div', 'pair-about');
    const name = make('p', 'name', one.id);
    name.title = one.id;
    const kind = BAD.has(one.state) ? 'state bad' : one.state === 'different' || one.state === 'identical' ? 'state' : 'state warn';
    text.append(name, make('p', 'figures-line', figures(one)), make('span', kind, NAMES[one.state]));
    if (one.why) text.append(make('p', 'differ', one.why));
    if (one.differ) text.append(make('p', 'differ', one.differ));
    text.append(make('p', 'text', one.text));
    row.append(text);
    const said = { si: 'no input', sa: 'no picture', sb: 'no picture', sd: one.state === 'identical' ? 'none' : 'not measured' };
    for (const [key, nothing] of Object.entries(said)) row.append(picture(one[key], nothing));
    return row;
  }

  function picture(name, nothing) {
    const box = make('div', 'pair-frame');
    const message = make('span', 'nothing', name ? '' : nothing);
    box.append(message);
    if (name) {
      const image = make('img');
      image.alt = '';
      image.decoding = 'async';
      image.draggable = false;
      image.onerror = () => { image.remove(); message.textContent = 'picture gone'; };
      image.src = joyedit.path(name);
      box.append(image);
    }
    return box;
  }

  function figures(one) {
    const told = [];
    if (one.psnr !== undefined) told.push(`PSNR ${one.psnr.toFixed(1)} dB`);
    if (one.psnr !== undefined && one.ssim !== undefined) told.push(`SSIM ${one.ssim.toFixed(4)}`);
    if (one.lpips !== undefined) told.push(`LPIPS ${one.lpips.toFixed(4)}`);
    return told.join(', ');
  }

  function tellActive() {
    for (const row of shown.values()) row.classList.toggle('active', Number(row.dataset.at) === active);
    const one = order[active];
    if (one && shown.has(active)) by('list').setAttribute('aria-activedescendant', `row-${one.n}`);
    else by('list').removeAttribute('aria-activedescendant');
  }

  function setActive(at, scroll = true) {
    if (!order.length) return;
    active = Math.max(0, Math.min(order.length - 1, at));
    if (scroll) {
      const top = by('list').getBoundingClientRect().top + active * height;
      const under = by('bar').getBoundingClientRect().bottom + GAP;
      if (top < under) scrollBy(0, top - under);
      else if (top + height > innerHeight) scrollBy(0, top + height - innerHeight);
      draw();
    }
    tellActive();
  }

  const isTyping = (target) => /^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName);
  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
    if (isTyping(event.target)) {
      if (event.key === 'Escape') by('list').focus({ preventScroll: true });
      return;
    }
    const page = Math.max(1, Math.floor((innerHeight - 160) / height));
    const moves = { ArrowUp: -1, ArrowDown: 1, PageUp: -page, PageDown: page, Home: -order.length, End: order.length };
    if (moves[event.key]) setActive(active + moves[event.key]);
    else if (event.key === 'Enter' && event.target.tagName !== 'BUTTON') joyedit.pairsViewer.open(order[active]);
    else if (event.key === 'f' || event.key === 'F' || event.key === '/') by('query').focus();
    else if (event.key === '?') by('help').showModal();
    else return;
    event.preventDefault();
  }

  document.addEventListener('DOMContentLoaded', begin);
  return { order: () => order, setActive, at: () => active, figures, NAMES };
})();
