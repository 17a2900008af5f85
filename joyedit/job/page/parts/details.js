// The panel beside an opened item.
'use strict';
joyedit.details = (() => {
  const { make, by } = joyedit;

  // `more` are its details; null until they are loaded.
  function show(item, more) {
    const box = by('details');
    box.replaceChildren();
    const state = make('p', item.bad ? 'state bad' : 'state', item.bad ? `failed: ${item.code}` : 'done');
    box.append(state);
    if (item.bad) box.append(said('error', (more && more.error) || item.why || ''));
    box.append(said('instruction', textOf(item, more)));
    if (item.off) box.append(said('off', item.off));
    if (!more) return;
    section(box, 'Settings', [...(more.settings || []), ...(more.lora ? [['lora', more.lora]] : []), ...(item.recipe ? [['recipe', item.recipe]] : []), ...(item.axes || [])]);
    section(box, 'Picture', pictureRows(item, more));
    if (more.seconds && more.seconds.length) times(box, more.seconds);
    section(box, 'Notes', (more.notes || []).map((note) => ['', note]));
    section(box, 'Columns', more.columns || []);
    section(box, 'From', [...(more.inputs || []).flatMap((one) => [['input', one], ...(one.off ? [['', one.off]] : [])]), ...(more.from ? [['source', more.from]] : []), ...(more.at ? [['at', more.at.replace('T', ' ')]] : [])]);
  }

  function textOf(item, more) {
    if (more && more.line) {
      try {
        const text = JSON.parse(more.line).instruction;
        return text.length > 20000 ? `${text.slice(0, 20000)}…` : text;
      } catch (error) { return item.text; }
    }
    return (more && more.text) || item.text;
  }

  function said(kind, text) {
    const element = make('p', `said ${kind}`, text);
    element.dir = 'auto';
    return element;
  }

  function pictureRows(item, more) {
    const rows = [];
    if (item.size) rows.push(['size', `${item.size[0]} × ${item.size[1]}`]);
    if (more.bytes) rows.push(['file', `${(more.bytes / 1e6).toFixed(2)} MB`]);
    if (item.drift) rows.push(['drift', `${item.drift[0].toFixed(1)}, ${item.drift[1].toFixed(1)}, zoom ${item.drift[2].toFixed(3)}`]);
    rows.push(...(more.fit || []));
    if (item.out) rows.push(['result', { name: item.raw ? 'the file (no browser shows this format)' : 'open', link: item.out }]);
    return rows;
  }

  function section(box, title, rows) {
    const filled = rows.filter(([, value]) => value !== '' && value !== undefined);
    if (!filled.length) return;
    box.append(make('h3', '', title));
    const list = make('dl');
    for (const [name, value] of filled) {
      list.append(make('dt', '', name), valueOf(value));
    }
    box.append(list);
  }

  function valueOf(value) {
    const cell = make('dd');
    cell.dir = 'auto';
    if (value && typeof value === 'object') {
      const link = make(value.link ? 'a' : 'span', '', value.name);
      if (value.link) {
        link.href = value.link;
        link.target = '_blank';
        link.rel = 'noopener noreferrer';
      }
      cell.append(link);
    } else cell.textContent = value;
    return cell;
  }

  function times(box, seconds) {
    box.append(make('h3', '', 'Time'));
    box.append(joyedit.figures.chart(seconds, 'Seconds of this item by stage'));
  }
  return { show };
})();
