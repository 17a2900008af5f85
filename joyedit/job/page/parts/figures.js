// The run as a whole: the line below the title, the chart of its stages, its figures.
'use strict';
joyedit.figures = (() => {
  const { make, by } = joyedit;
  const SVG = 'http://www.w3.org/2000/svg';
  const svg = (tag, attributes, text) => {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };

  const STATES = { complete: 'complete', running: 'running', interrupted: 'interrupted', out_of_time: 'out of time', stopped: 'stopped', killed: 'ended early' };
  const moment = (text) => {
    const at = new Date(text);
    return Number.isNaN(at.getTime()) ? '' : at.toLocaleString('en', { day: 'numeric', month: 'short', year: 'numeric', hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });
  };

  function summary() {
    const { run } = joyedit;
    const line = by('summary');
    line.replaceChildren();
    const part = (text, kind) => line.append(make('span', kind || '', text));
    part(`${joyedit.number(run.done)} done`);
    if (run.failed) part(`${joyedit.number(run.failed)} failed`, 'fail');
    if (run.left) part(`${joyedit.number(run.left)} left`);
    if (run.state && run.state !== 'complete') part(STATES[run.state] || run.state, run.state === 'running' ? '' : 'fail');
    if (run.seconds) part(joyedit.seconds(run.seconds));
    const when = moment(run.ended || run.built);
    if (when) part(when);
    by('stages').replaceChildren(...run.stages.map(([name, value]) => {
      const share = make('i', colour(name));
      share.style.flexGrow = value;
      return share;
    }));
    by('stages').hidden = !run.stages.length;
  }

  const STAGES = ['load', 'read', 'encode', 'denoise', 'decode', 'write'];
  const colour = (name) => `stage-${Math.max(0, STAGES.indexOf(name))}`;

  // A bar for each stage. `seconds` are pairs of name and seconds.
  function chart(seconds, label) {
    const rows = seconds.filter(([, value]) => value > 0);
    const most = Math.max(...rows.map(([, value]) => value), 1e-9);
    const [left, right, width, step] = [66, 78, 310, 24];
    const box = svg('svg', { viewBox: `0 0 ${width} ${Math.max(1, rows.length) * step}`, role: 'img', class: 'chart' });
    box.append(svg('title', {}, `${label}: ${rows.map(([name, value]) => `${name} ${joyedit.seconds(value)}`).join(', ')}`));
    rows.forEach(([name, value], number) => {
      const y = number * step;
      const length = Math.max(2, (value / most) * (width - left - right));
      box.append(
        svg('text', { x: left - 10, y: y + 16, 'text-anchor': 'end', class: 'chart-name' }, name),
        svg('rect', { x: left, y: y + 5, width: length.toFixed(1), height: 14, rx: 3, class: `chart-bar ${colour(name)}` }),
        svg('text', { x: left + length + 8, y: y + 16, class: 'chart-value' }, joyedit.seconds(value)),
      );
    });
    return box;
  }

  // How many items took how long, in twenty steps up to the slowest of nearly all.
  function spread() {
    const times = joyedit.items.filter((item) => item.sec && !item.bad).map((item) => item.sec).sort((a, b) => a - b);
    if (times.length < 20) return null;
    const most = times[Math.floor(times.length * 0.995)] || 1;
    const counts = new Array(24).fill(0);
    for (const time of times) counts[Math.min(23, Math.floor((time / most) * 24))] += 1;
    const highest = Math.max(...counts);
    const box = svg('svg', { viewBox: '0 0 310 92', role: 'img', class: 'chart' });
    box.append(svg('title', {}, `Seconds an item: half of them took up to ${joyedit.seconds(times[times.length >> 1])}`));
    counts.forEach((count, number) => {
      const height = count ? Math.max(2, (count / highest) * 66) : 0;
      box.append(svg('rect', { x: number * 12.9, y: 70 - height, width: 11, height, rx: 2, class: 'chart-bar stage-3' }));
    });
    box.append(svg('text', { x: 0, y: 88, class: 'chart-name' }, '0 s'), svg('text', { x: 308, y: 88, 'text-anchor': 'end', class: 'chart-name' }, joyedit.seconds(most)));
    return box;
  }

  function show() {
    const { run } = joyedit;
    const box = by('figures');
    box.replaceChildren();
    const card = (title, ...parts) => {
      const one = make('div', 'figure');
      one.append(make('h2', '', title), ...parts);
      box.append(one);
    };
    if (run.error) box.append(make('p', 'said error wide', run.error));
    if (run.stages.length) {
      card('Time by stage', chart(run.stages, 'Time by stage of the last run'), make('p', 'muted small', 'Seconds of the last run. Stages overlap, and threads are added up.'));
    }
    const times = spread();
    if (times) card('Seconds an item', times);
    if (run.codes.length) card('Failed', codes(run.codes));
    if (run.rows.length) {
      const list = make('dl');
      for (const [name, value] of run.rows) list.append(make('dt', '', name), make('dd', '', value));
      card('The last run', list);
    }
    if (run.notes.length) {
      const list = make('ul', 'small');
      run.notes.forEach((note) => list.append(make('li', '', note)));
      card('Notes', list);
    }
  }

  function codes(all) {
    const list = make('div', 'codes');
    for (const [code, count] of all) {
      const button = make('button', 'code');
      button.type = 'button';
      button.append(make('span', '', code), make('b', '', joyedit.number(count)));
      button.onclick = () => joyedit.filters.only({ state: 'failed', code });
      list.append(button);
    }
    return list;
  }

  function toggle() {
    const box = by('figures');
    box.hidden = !box.hidden;
    by('figures-button').setAttribute('aria-expanded', !box.hidden);
    if (!box.hidden) show();
    joyedit.grid.draw();
  }
  return { summary, chart, toggle, show };
})();
