"Sphinx configuration; the facts come from settings.ini"
from configparser import ConfigParser
from pathlib import Path

ini = ConfigParser(delimiters=['='])
ini.read(Path(__file__).parent.parent/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']

project, author, release, language = cfg['title'], cfg['author'], cfg['version'], cfg['language'][:2].lower()
copyright = cfg['copyright']
extensions = ['myst_nb', 'sphinx_copybutton', 'sphinx_design']
nb_execution_mode = 'off'
nb_merge_streams = True
nb_render_markdown_format = 'myst'   # outputs hold tables, which plain CommonMark does not know
nb_ipywidgets_js = {}
myst_enable_extensions = ['dollarmath', 'amsmath', 'colon_fence', 'deflist']
myst_heading_anchors = 4
suppress_warnings = ['myst.header', 'mystnb.unknown_mime_type', 'misc.highlighting_failure']
html_theme = 'furo'
html_title = f"{cfg['title']} {cfg['version']}"
html_static_path = ['_static']
html_css_files = ['notebook.css', 'live/live.css']
html_js_files = [('live/live.js', {'type': 'module'})]
html_baseurl = cfg['doc_host']+cfg['doc_baseurl']
html_copy_source = html_show_sourcelink = False
html_theme_options = {'source_repository': cfg['git_url'], 'source_branch': cfg['branch'], 'source_directory': cfg['nbs_path']+'/'}
mathjax_path = 'mathjax/tex-svg.js'
exclude_patterns = ['_build']
