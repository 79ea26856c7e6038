// Asks for this page again and again, and puts its new content in the place of the old.
const PERIOD = 5000;
let version = "";
const notice = document.createElement("p");
notice.id = "notice";
notice.hidden = true;
document.body.prepend(notice);

function say(words) {
  notice.hidden = !words;
  notice.textContent = words;
}
// What is folded out, by its words without numbers and how many of the same came before.
function folds(root) {
  const counts = new Map();
  return [...root.querySelectorAll("details")].map((fold) => {
    const words = fold.querySelector("summary").textContent.replace(/[\d,]+/g, "");
    counts.set(words, (counts.get(words) ?? 0) + 1);
    return [words + counts.get(words), fold];
  });
}
function replaceMain(fresh) {
  const old = document.querySelector("main");
  const open = new Set(folds(old).filter(([, fold]) => fold.open).map(([key]) => key));
  for (const [key, fold] of folds(fresh)) fold.open = open.has(key);
  const logs = [...old.querySelectorAll(".log")].map((log) =>
    log.scrollTop + log.clientHeight < log.scrollHeight - 4 ? log.scrollTop : Infinity);
  old.replaceWith(fresh);
  fresh.querySelectorAll(".log").forEach((log, i) => { log.scrollTop = Math.min(logs[i] ?? Infinity, log.scrollHeight); });
  fresh.querySelectorAll(".plot").forEach(readValues);
}
// Who reads a value off a curve, or marks text, is left alone until they are done.
function isBusy() {
  return document.querySelector(".tip") || !document.getSelection().isCollapsed;
}
async function follow() {
  try {
    const answer = await fetch(location.href, {
      cache: "no-store", headers: version ? { "If-None-Match": version } : {},
    });
    const words = answer.status === 304 ? "" : await answer.text();
    if (answer.status === 200 && !isBusy()) {
      const page = new DOMParser().parseFromString(words, "text/html");
      replaceMain(document.adoptNode(page.querySelector("main")));
      document.title = page.title;
      version = answer.headers.get("ETag") ?? "";
    }
    say(answer.ok || answer.status === 304 ? "" : words);
  } catch {
    say("minimind report has ended, or cannot be reached: this is what it showed last.");
  }
  setTimeout(follow, PERIOD);
}
document.querySelectorAll(".log").forEach((log) => { log.scrollTop = log.scrollHeight; });
setTimeout(follow, PERIOD);
