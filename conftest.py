"""Every cell of every notebook as one pytest item.

`pytest` runs the cells as they are written. With `NB_MODULE=1` the exported cells are replaced by the names of the exported module,
so that the same examples test what users import, and coverage counts it.
"""
import os, re
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile('fixed', derandomize=True)   # the same examples every time; HYPOTHESIS_PROFILE=default looks for new ones
settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'fixed'))
NBS = Path(__file__).parent/'nbs'
AGAINST_MODULE = os.environ.get('NB_MODULE')=='1'
DIRECTIVE = re.compile(r'^\s*#\s*\|\s*(\S+?):?(?:\s+(.*?))?\s*$', re.M)


def directives(cell):
    "The `#| key value` lines of a cell"
    return {m[1]: (m[2] or '').lower() for m in DIRECTIVE.finditer(cell.source)}


class CellFailed(Exception):
    "A cell raised; the message is the traceback as a notebook shows it"


class CellItem(pytest.Item):
    def __init__(self, *, source, **kw):
        super().__init__(**kw)
        self.source = source

    def runtest(self):
        from fastcore.xtras import working_directory
        if self.parent.failed: pytest.skip('an earlier cell of this notebook failed')
        shell = self.parent.shell()
        with working_directory(self.path.parent):
            result = shell.run_cell(self.source, silent=False)
            error = getattr(result, 'exception', None)
        if error:
            self.parent.failed = True
            raise CellFailed(f'{type(error).__name__}: {error}') from error

    def repr_failure(self, excinfo):
        error = excinfo.value.__cause__ or excinfo.value
        import traceback
        return self.source + '\n\n' + ''.join(traceback.format_exception(error)[-12:])

    def reportinfo(self): return self.path, 0, f'{self.path.name}::{self.name}'


class Notebook(pytest.File):
    failed = False
    _shell = None

    def shell(self):
        "One IPython shell per notebook, made when its first cell runs"
        if self._shell is None:
            from execnb.shell import CaptureShell
            self._shell = CaptureShell(self.path)
            self._shell.run_cell = self._shell._run
        return self._shell

    def collect(self):
        from execnb.nbio import read_nb
        section, module = 'start', None
        nb = read_nb(self.path)
        if any(c.cell_type=='raw' and re.search(r'skip_exec:\s*true', c.source) for c in nb.cells[:2]): return
        for i,cell in enumerate(nb.cells):
            if cell.cell_type=='markdown' and (m := re.match(r'\s*#{2,3} (.+)', cell.source)): section = m[1].strip()
            if cell.cell_type!='code' or not cell.source.strip(): continue
            told = directives(cell)
            if 'default_exp' in told: module = told['default_exp'].split()[0]
            if told.get('eval')=='false' or 'nbdev_export(' in cell.source: continue
            source = cell.source
            if AGAINST_MODULE and module and {'export','exports','exporti'} & told.keys():
                name = 'vllm_tuner' if module=='__init__' else f'vllm_tuner.{module}'
                source = f'import importlib as _i; globals().update({{k: v for k, v in vars(_i.import_module({name!r})).items() if not k.startswith("__")}})'
            yield CellItem.from_parent(self, name=f'{section}#{i}', source=source)

    def teardown(self):
        if self._shell is not None:
            import sys
            self._shell.user_ns.clear()
            if (plt := sys.modules.get('matplotlib.pyplot')): plt.close('all')


def pytest_collect_file(parent, file_path):
    if file_path.suffix=='.ipynb' and NBS in file_path.parents and not any(p.startswith(('.','_')) for p in file_path.relative_to(NBS).parts):
        return Notebook.from_parent(parent, path=file_path)
