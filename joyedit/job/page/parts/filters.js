// The bar above the grid: what is shown, and in which order.
'use strict';
joyedit.filters = (() => {
  const { make, by, number } = joyedit;
  const { wish, facts } = joyedit.choice;
  let groups = false; // sweeps side by side
  let timer = 0;

  function begin() {
    by('query').addEventListener('input', () => {
      clearTimeout(timer);
      timer = setTimeout(() => { wish.query = by('query').value; apply(true); }, 120);
    });
    by('sort').addEventListener('change', () => { wish.sort = by('sort').value; apply(true); });
    by('clear').onclick = () => only({});
    by('sweep-button').onclick = () => sweeps();
    joyedit.marks.onChange(() => { states(); exportButton(); });
  }

  // Everything anew: items have come, or the choice is another one.
  function apply(toTop = false) {
    const chosen = joyedit.choice.choose();
    const found = groups ? joyedit.sweeps.groupsOf(chosen) : null;
    joyedit.grid.show(chosen, found);
    const shown = joyedit.grid.order().length;
    by('empty').hidden = shown > 0;
    tell(shown);
    states();
    if (toTop && scrollY > by('bar').offsetTop) scrollTo(0, by('bar').offsetTop);
  }

  function tell(shown) {
    const all = joyedit.run.counts.reduce((sum, count) => sum + count, 0);
    const loaded = joyedit.items.length;
    let text = joyedit.choice.isPlain() && !groups ? `${number(shown)} items` : `${number(shown)} of ${number(loaded)} items`;
    if (loaded < all) text += `, ${number(all - loaded)} more are being loaded`;
    by('count').textContent = text;
  }

  // What there is to choose from, by the items that have come so far.
  function offer() {
    joyedit.choice.measure();
    states();
    sorts();
    chips();
    exportButton();
    by('sweep-button').hidden = !groups && !joyedit.sweeps.isThere(joyedit.items);
  }

  function states() {
    const { run } = joyedit;
    const counts = { all: run.done + run.failed, done: run.done, failed: run.failed, starred: joyedit.marks.size() };
    const box = by('states');
    const focused = document.activeElement && document.activeElement.dataset.state;
    box.replaceChildren();
    for (const [state, count] of Object.entries(counts)) {
      const button = make('button', '', state[0].toUpperCase() + state.slice(1));
      button.type = 'button';
      button.dataset.state = state;
      button.append(make('span', 'muted', ` ${number(count)}`));
      button.setAttribute('aria-pressed', wish.state === state);
      button.onclick = () => { wish.state = state; if (state !== 'failed' && state !== 'all') wish.code = ''; apply(true); chips(); };
      box.append(button);
      if (focused === state) button.focus();
    }
  }

  function sorts() {
    const select = by('sort');
    const names = Object.keys(joyedit.choice.SORTS).filter((name) => name !== 'drift' || facts.hasDrift);
    select.replaceChildren(...names.map((name) => {
      const option = make('option', '', joyedit.choice.SORTS[name][0]);
      option.value = name;
      return option;
    }));
    select.value = wish.sort;
  }

  function chips() {
    const box = by('chips');
    box.replaceChildren();
    const chip = (name, text, count, title) => {
      if (!count) return;
      const button = make('button', 'chip', text);
      button.type = 'button';
      button.title = title;
      button.append(make('span', 'muted', ` ${number(count)}`));
      button.setAttribute('aria-pressed', wish[name]);
      button.onclick = () => { wish[name] = !wish[name]; button.setAttribute('aria-pressed', wish[name]); apply(true); };
      box.append(button);
    };
    chip('slow', 'Slow', facts.slowCount, `more than ${joyedit.seconds(facts.slow)}: twice the median`);
    chip('drift', 'Drift', facts.driftCount, `moved by more than ${facts.drift.toFixed(0)} pixels`);
    chip('off', 'Changed', facts.offCount, 'the picture is gone, or another one than was recorded');
    chip('note', 'With notes', facts.noteCount, 'pictures that needed unusual steps');
    const list = (name, label, values) => {
      if (!values.size) return;
      const select = make('select', 'chip');
      select.setAttribute('aria-label', label);
      const any = make('option', '', label);
      any.value = '';
      select.append(any);
      for (const [value, count] of [...values].sort((a, b) => b[1] - a[1])) {
        const option = make('option', '', `${value} (${number(count)})`);
        option.value = value;
        select.append(option);
      }
      select.value = wish[name];
      select.classList.toggle('set', Boolean(wish[name]));
      select.onchange = () => { wish[name] = select.value; select.classList.toggle('set', Boolean(select.value)); apply(true); };
      box.append(select);
    };
    list('code', 'Any failure', facts.codes);
    list('recipe', 'Any recipe', facts.recipes);
    box.hidden = !box.children.length;
  }

  // These filters and no others.
  function only(wanted) {
    joyedit.choice.clear();
    Object.assign(wish, wanted);
    by('query').value = wish.query;
    apply(true);
    chips();
  }

  function sweeps() {
    if (by('sweep-button').hidden) return;
    groups = !groups;
    by('sweep-button').setAttribute('aria-pressed', groups);
    apply(true);
  }

  function exportButton() {
    const count = joyedit.marks.size();
    by('export-button').hidden = !count;
    by('export-button').textContent = `Export ${number(count)}`;
  }
  return { begin, apply, offer, only, sweeps, tell };
})();
