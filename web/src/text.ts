// Strangers' text. It becomes text nodes only, never HTML, and cannot change what stands around it.

/** Characters beyond which a text is folded, and the lines. */
const foldedLength = 400;
const foldedLines = 8;

/** What is neither space, control, format or mark, nor a letter that fonts draw empty. */
const visible = /[^\p{Z}\p{Cc}\p{Cf}\p{Cs}\p{M}\u115f\u1160\u3164\uffa0\u2800]/u;

/** Control characters, and those that change the direction of what follows. */
const directions = /[\p{Cc}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+/gu;

/** A text as an element with the class "text": folded if it is long, and marked if nothing of it could be seen. */
export function textElement(text: string): HTMLElement {
  const element = document.createElement("div");
  const content = document.createElement("div");
  content.className = "text";
  content.dir = "auto";
  element.append(content);
  if (!visible.test(text)) {
    content.textContent = text;
    const remark = document.createElement("span");
    remark.className = "remark";
    remark.textContent = text === "" ? "An empty note" : "A note without visible characters";
    element.append(remark);
    return element;
  }
  const folded = fold(text);
  content.textContent = folded;
  if (folded.length < text.length) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "unfold";
    button.textContent = `Show all ${text.length.toLocaleString()} characters`;
    button.addEventListener("click", () => {
      content.textContent = text;
      button.remove();
    });
    element.append(button);
  }
  return element;
}

/** The beginning of a text. */
function fold(text: string): string {
  let end = text.length > foldedLength * 1.5 ? foldedLength : text.length;
  let line = -1;
  for (let lines = 0; lines < foldedLines; lines++) {
    line = text.indexOf("\n", line + 1);
    if (line < 0 || line >= end) {
      return cut(text, end);
    }
  }
  return cut(text, line);
}

/** The first characters of a text, not ending within a pair of surrogates. */
function cut(text: string, length: number): string {
  const last = text.charCodeAt(length - 1);
  return text.slice(0, length < text.length && last >= 0xd800 && last < 0xdc00 ? length - 1 : length);
}

/** A text in one line, for labels, and for names that screen readers speak. */
export function summary(text: string, length: number): string {
  if (!visible.test(text)) {
    return "(no visible text)";
  }
  const start = cut(text, 4 * length).replace(directions, " ").replace(/\s+/gu, " ").trim();
  return start.length > length ? `${cut(start, length - 1)}…` : start || "(no visible text)";
}

/** HTML that shows a text: for the one interface of Leaflet that takes no text. */
export function escapeHTML(text: string): string {
  const element = document.createElement("span");
  element.textContent = text;
  return element.innerHTML;
}
