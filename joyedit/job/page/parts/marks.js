// Stars: kept in this browser under the name of the run, and exported as a manifest or as a list of ids.
'use strict';
joyedit.marks = (() => {
  const marked = new Set(); // ids
  const listeners = [];
  let kept = true; // whether the browser keeps them
  const key = () => `joyedit:stars:${joyedit.run.key}`;

  function read() {
    try {
      const found = JSON.parse(localStorage.getItem(key()) || '[]');
      if (Array.isArray(found)) found.forEach((id) => marked.add(String(id)));
    } catch (error) { kept = false; }
  }

  function write() {
    try {
      localStorage.setItem(key(), JSON.stringify([...marked]));
      kept = true;
    } catch (error) { kept = false; } // a browser that keeps nothing for files, or a full store
    listeners.forEach((listen) => listen());
  }

  const has = (item) => marked.has(item.id);
  function toggle(item) {
    if (!marked.delete(item.id)) marked.add(item.id);
    write();
    return marked.has(item.id);
  }
  function clear() { marked.clear(); write(); }
  const chosen = () => joyedit.items.filter(has);

  // The absolute path of a file that lies at `relative` from this page; as it is where the page has no place on a disk.
  function pathOf(relative) {
    if (location.protocol !== 'file:') return relative;
    const link = relative.split('/').map(encodeURIComponent).join('/');
    const path = decodeURIComponent(new URL(link, location.href).pathname);
    return /^\/[A-Za-z]:/.test(path) ? path.slice(1) : path;
  }

  // The line of a manifest. It is put together as text: a seed has more digits than a number here holds.
  function lineOf(more, withWork) {
    let line = more.line.slice(0, -1);
    for (const [key, value] of withWork ? Object.entries(more.work || {}) : []) line += `, ${JSON.stringify(key)}: ${JSON.stringify(value)}`;
    const images = (more.images || []).map(pathOf);
    if (images.length === 1) line += `, "image": ${JSON.stringify(images[0])}`;
    if (images.length > 1) line += `, "images": ${JSON.stringify(images)}`;
    if (more.mask) line += `, "mask": ${JSON.stringify(pathOf(more.mask))}`;
    if (more.loras) line += `, "lora": ${JSON.stringify(more.loras.map(([file, scale]) => ({ file: pathOf(file), scale })))}`;
    return `${line}}`;
  }

  // The manifest of all starred items, with steps and sizes or without, and why some are not in it.
  async function manifest(withWork) {
    const lines = [];
    const left = [];
    for (const item of chosen()) {
      const more = await joyedit.detailsOf(item);
      if (more && more.line) lines.push(lineOf(more, withWork));
      else left.push(`${item.id}: ${(more && more.why) || 'its details are gone'}`);
    }
    return { text: lines.map((line) => `${line}\n`).join(''), lines: lines.length, left };
  }

  function save(name, text, type) {
    const link = joyedit.make('a');
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  return { read, has, toggle, clear, chosen, manifest, save, isKept: () => kept, size: () => chosen().length, onChange: (listen) => listeners.push(listen) };
})();
