// The beginning of the page, its keys, and the export.
'use strict';
joyedit.main = (() => {
  const { by } = joyedit;
  const idle = window.requestIdleCallback || ((call) => setTimeout(call, 1));

  function begin() {
    const { run } = joyedit;
    if (!run) {
      notice('The data of this page is gone: joyedit view makes it anew.');
      return;
    }
    joyedit.marks.read();
    joyedit.figures.summary();
    by('figures-button').onclick = joyedit.figures.toggle;
    by('help-button').onclick = () => by('help').showModal();
    by('help').addEventListener('keydown', (event) => event.stopPropagation());
    joyedit.grid.begin(joyedit.viewer.open);
    joyedit.viewer.begin();
    joyedit.filters.begin();
    exporting();
    if (joyedit.loaded < run.counts.length) joyedit.choice.wish.sort = 'run'; // nothing moves while the rest comes
    joyedit.filters.offer();
    joyedit.filters.apply();
    if (run.left_pictures) notice(`${joyedit.number(run.left_pictures)} small pictures are still to be made: joyedit view makes them.`);
    if (!joyedit.marks.isKept()) notice('This browser keeps no stars for files: export them before you close the page.');
    document.addEventListener('keydown', key);
    by('grid').focus({ preventScroll: true });
    rest();
  }

  // The other items, one file after the other, while the page is used. The grid is drawn anew from time to time.
  async function rest() {
    let drawn = performance.now();
    const begun = joyedit.loaded;
    while (joyedit.loaded < joyedit.run.counts.length) {
      if (!await joyedit.load('items', joyedit.loaded)) {
        notice('A part of the data is gone: joyedit view makes it anew.');
        break;
      }
      if (performance.now() - drawn > 700) {
        joyedit.filters.apply();
        drawn = performance.now();
      }
      await new Promise((resolve) => idle(resolve));
    }
    if (joyedit.loaded > begun) {
      joyedit.filters.offer();
      joyedit.filters.apply();
    }
    document.documentElement.dataset.ready = 'all';
  }

  function notice(text) {
    const line = by('notice');
    line.textContent = line.textContent ? `${line.textContent} ${text}` : text;
    line.hidden = false;
  }

  const isTyping = (target) => /^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName);

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || joyedit.viewer.isOpen() || by('help').open || by('export').open) return;
    if (isTyping(event.target)) {
      if (event.key === 'Escape' || (event.key === 'Enter' && event.target === by('query'))) {
        if (event.key === 'Escape' && event.target === by('query') && by('query').value) {
          by('query').value = '';
          by('query').dispatchEvent(new Event('input'));
        }
        by('grid').focus({ preventScroll: true });
        event.preventDefault();
      }
      return;
    }
    const isButton = event.target.tagName === 'BUTTON' || event.target.tagName === 'A';
    const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act || (isButton && (event.key === 'Enter' || event.key === ' '))) return;
    act(event.key);
    event.preventDefault();
  }

  const KEYS = {
    Enter: () => joyedit.viewer.open(joyedit.grid.active()),
    Escape: () => { if (!joyedit.choice.isPlain()) joyedit.filters.only({}); },
    s: () => joyedit.grid.active() && joyedit.grid.star(joyedit.grid.active()),
    ' ': () => KEYS.s(),
    f: () => by('query').focus(),
    '/': () => by('query').focus(),
    '?': () => by('help').showModal(),
    b: () => { document.body.classList.toggle('show-before'); joyedit.grid.fill(); },
    i: () => joyedit.figures.toggle(),
    g: () => joyedit.filters.sweeps(),
    e: () => { if (joyedit.marks.size()) openExport(); },
  };
  for (const name of ['ArrowLeft', 'ArrowRight', 'ArrowUp', 'ArrowDown', 'Home', 'End', 'PageUp', 'PageDown']) {
    KEYS[name] = (pressed) => { by('grid').focus({ preventScroll: true }); joyedit.grid.move(pressed); };
  }

  function exporting() {
    by('export-button').onclick = openExport;
    by('export-work').onchange = command;
    by('export-close').onclick = () => by('export').close();
    by('export-clear').onclick = () => { joyedit.marks.clear(); joyedit.grid.repaint(); by('export').close(); };
    by('export-ids').onclick = () => {
      const text = joyedit.marks.chosen().map((item) => `${item.id}\n`).join('');
      joyedit.marks.save('starred.txt', text, 'text/plain');
    };
    by('export-manifest').onclick = async () => {
      const made = await joyedit.marks.manifest(!by('export-work').checked);
      if (made.lines) joyedit.marks.save('starred.jsonl', made.text, 'application/x-ndjson');
      const told = [`${joyedit.number(made.lines)} lines are in starred.jsonl.`];
      if (made.left.length) told.push(`Left out: ${made.left.slice(0, 20).join('; ')}${made.left.length > 20 ? '; ...' : ''}.`);
      if (location.protocol !== 'file:') told.push('Paths are relative to the output folder: put the file there.');
      by('export-note').textContent = told.join(' ');
      by('export-note').hidden = false;
    };
  }

  function command() {
    const flags = by('export-work').checked ? '--steps 60 --basesize 1024 ' : '';
    by('export-command').textContent = `joyedit run starred.jsonl ${flags}--output keepers`;
  }

  function openExport() {
    const count = joyedit.marks.size();
    by('export-count').textContent = count === 1 ? '1 item is starred.' : `${joyedit.number(count)} items are starred.`;
    command();
    by('export-note').hidden = true;
    by('export').showModal();
  }

  document.addEventListener('DOMContentLoaded', begin);
  return { notice };
})();
