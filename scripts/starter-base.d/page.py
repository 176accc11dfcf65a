"""The readable text of an HTML page, in the shape that Moat's own extraction gives it: headings as `# `, list items
as `- `, table cells between ` | `, `pre` verbatim; scripts, styles, navigation and footers left out."""

import re
from html.parser import HTMLParser

DROPPED = {"script", "style", "nav", "footer", "aside", "head", "template", "svg", "button", "select", "noscript"}
PARAGRAPH = {"p", "blockquote", "ul", "ol", "dl", "table", "pre"}
LINE = {"div", "section", "article", "main", "header", "dt", "dd", "tr", "li", "caption", "summary", "details"}
VOID = {"br", "hr", "img", "input", "link", "meta", "col", "area", "base", "wbr", "source"}
# Elements of the documentation tools that hold no text of their author's.
FURNITURE = re.compile(
    r"headerlink|sphinxsidebar|breadcrumb|rel(ated|bar)|out-of-band|srclink|sidebar|menu-bar|nav-chapters|toplang"
    r"|bottomlang|toc\b|navfooter|navheader|spirit-nav|copyright-footer|viewcode|clipboard|linenos|mobile-nav"
    r"|quickview|api_metadata|localtoc|searchbox|rightside|notranslate-nav|footer|preamble|path")
MAIN = re.compile(r'<(main|article|section|div)\b[^>]*(?:role="main"|id="main-content"|id="page-content"|id="mainBody")')


class Page(HTMLParser):
    """Collects lines; `self.hidden` counts the open elements within a dropped one."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.lines, self.current = [], ""
        self.hidden, self.pre, self.cell = [], 0, False

    def end_line(self, blank=False):
        if self.pre:
            return
        text = re.sub(r"\s+", " ", self.current).strip()
        if text and text not in ("-", "#"):
            self.lines.append(text)
        self.current = ""
        if blank and self.lines and self.lines[-1]:
            self.lines.append("")

    def handle_starttag(self, tag, attributes):
        if self.hidden:
            if tag not in VOID:
                self.hidden.append(tag)
            return
        attributes = dict(attributes)
        name = f'{attributes.get("class") or ""} {attributes.get("id") or ""}'
        furniture = tag not in ("body", "html", "main", "pre") and FURNITURE.search(name)
        if (tag in DROPPED or furniture) and tag not in VOID:
            self.hidden.append(tag)
        elif tag == "br":
            self.current += "\n" if self.pre else " "
            self.end_line()
        elif tag in ("h1", "h2", "h3", "h4", "h5", "h6"):
            self.end_line(blank=True)
            self.current = "#" * int(tag[1]) + " "
        elif tag in PARAGRAPH:
            self.end_line(blank=tag != "p" or not self.current.startswith("- "))
            if tag == "pre":
                self.pre, self.current = self.pre + 1, ""
        elif tag in LINE:
            self.end_line()
            self.current = "- " if tag == "li" else self.current
            self.cell = False
        elif tag in ("td", "th"):
            self.current += " | " if self.cell else ""
            self.cell = True

    def handle_endtag(self, tag):
        if self.hidden:
            if tag in self.hidden:
                while self.hidden.pop() != tag:
                    pass
            return
        if tag == "pre" and self.pre:
            self.pre -= 1
            if not self.pre:
                self.lines += [line.rstrip() for line in self.current.strip("\n").split("\n")] + [""]
                self.current = ""
        elif tag in PARAGRAPH or re.fullmatch("h[1-6]", tag):
            self.end_line(blank=True)
        elif tag in LINE:
            self.end_line()

    def handle_data(self, data):
        if not self.hidden:
            self.current += data


def text_of(html):
    """The page's text, from its main part where it marks one."""
    start = MAIN.search(html)
    page = Page()
    page.feed(html[start.start():] if start else html)
    page.close()
    page.pre = 0
    page.end_line()
    text = "\n".join(page.lines).replace("\u00b6", "").replace("\u00a0", " ")
    return re.sub(r"\n{3,}", "\n\n", text).strip()
