// Binds every <div data-live="view"> of a page to the Python view of that name, run by Pyodide. Nothing is loaded before the reader asks for it or scrolls to it.
const here = new URL('./', import.meta.url);
let python = null;

async function start() {
  const { loadPyodide } = await import(new URL('pyodide/pyodide.mjs', here));
  const [py, zip] = await Promise.all([loadPyodide({ indexURL: new URL('pyodide/', here).href }), fetch(new URL('vllm_tuner.zip', here)).then(r => r.arrayBuffer())]);
  py.unpackArchive(zip, 'zip', { extractDir: '/lib/app' });
  py.runPython("import sys; sys.path.insert(0, '/lib/app')");
  return py.pyimport('vllm_tuner.views');
}

function field(control, id, changed) {
  const box = document.createElement('div');
  box.className = 'live-field';
  const label = document.createElement('label');
  label.htmlFor = id; label.textContent = control.label; label.title = control.help;
  let input;
  if (control.kind === 'choice') {
    input = document.createElement('select');
    for (const o of control.options) input.add(new Option(o[0], o[1], false, o[1] === control.value));
  } else if (control.kind === 'model') {
    input = document.createElement('input');
    input.value = control.value; input.setAttribute('list', id + '-list'); input.autocomplete = 'off'; input.spellcheck = false;
    const list = document.createElement('datalist');
    list.id = id + '-list';
    for (const o of control.options) list.append(new Option(o[0], o[1]));
    box.append(list);
  } else if (control.kind === 'steps') {
    input = document.createElement('input');
    input.type = 'range'; input.min = 0; input.max = control.options.length - 1; input.step = 1;
    input.value = control.options.findIndex(o => o[1] === control.value);
    const shown = document.createElement('output');
    shown.htmlFor = id;
    const say = () => { shown.textContent = control.options[input.value][0]; input.setAttribute('aria-valuetext', shown.textContent); };
    input.addEventListener('input', say); say();
    box.append(shown);
  } else {
    input = document.createElement('textarea');
    input.rows = 6; input.value = control.value; input.spellcheck = false;
  }
  input.id = id;
  input.addEventListener('input', changed);
  box.prepend(label); box.append(input);
  return [box, () => control.kind === 'steps' ? control.options[input.value][1] : input.value];
}

async function mount(root) {
  const name = root.dataset.live, status = root.querySelector('.live-status');
  root.setAttribute('aria-busy', 'true');
  status.textContent = 'Loading Python (11 MB, once) ...';
  try { python ??= start(); const views = await python; build(root, views, name); }
  catch (e) { status.textContent = 'The live explorer could not start here: ' + e.message; python = null; }
  root.removeAttribute('aria-busy');
}

function build(root, views, name) {
  const controls = JSON.parse(views.controls(name)), read = {}, form = document.createElement('form'), out = document.createElement('div');
  form.className = 'live-form'; form.setAttribute('aria-label', 'settings'); form.addEventListener('submit', e => e.preventDefault());
  out.className = 'live-view'; out.setAttribute('role', 'region'); out.setAttribute('aria-label', 'result'); out.setAttribute('aria-live', 'polite');
  let due = 0;
  const draw = () => { due = 0; out.innerHTML = views.render(name, JSON.stringify(Object.fromEntries(Object.entries(read).map(([k, f]) => [k, f()])))); };
  const changed = () => { if (!due) due = requestAnimationFrame(draw); };
  for (const c of controls) { const [box, value] = field(c, `live-${name}-${c.name}`, changed); read[c.name] = value; form.append(box); }
  root.replaceChildren(form, out);
  draw();
  root.dataset.ready = 'true';
}

for (const root of document.querySelectorAll('[data-live]')) root.querySelector('button')?.addEventListener('click', () => mount(root));
for (const root of document.querySelectorAll('[data-live][data-auto]')) mount(root);
