// Loads the model that lies beside the page, and talks.
import { AutoModelForCausalLM, AutoTokenizer, Tensor, TextStreamer, env }
  from "./runtime/transformers.min.js";
import { WORDS } from "./words.js";

const element = (id) => document.getElementById(id);
const { dtype, context, answer } = await (await fetch("settings.json")).json();
const MODES = ["chat", "write"];
let language = navigator.language.startsWith("zh") ? "zh" : "en";
let state = "loading", detail = "";
let turns = [];
let model, tokenizer;

env.allowRemoteModels = false;
env.allowLocalModels = true;
env.localModelPath = new URL(".", location.href).pathname;
env.backends.onnx.wasm.wasmPaths = new URL("runtime/", location.href).href;
// Threads need headers that a plain file server does not send.
if (!globalThis.crossOriginIsolated) env.backends.onnx.wasm.numThreads = 1;

function options(select, names, words, chosen) {
  select.replaceChildren(...names.map((name) => new Option(words(name), name, false, name === chosen)));
}

function show() {
  const words = WORDS[language];
  document.documentElement.lang = language;
  for (const part of document.querySelectorAll("[data-word]")) part.textContent = words[part.dataset.word];
  options(element("mode"), MODES, (name) => words[name], element("mode").value || "chat");
  options(element("language"), Object.keys(WORDS), (name) => ({ en: "English", zh: "中文" })[name], language);
  element("text").placeholder = words[element("mode").value === "chat" ? "ask" : "begin"];
  element("send").textContent = words.send;
  element("clear").textContent = words.clear;
  element("state").textContent = detail ? `${words[state]}: ${detail}` : words[state];
  element("state").dataset.state = state;
  for (const id of ["text", "send"]) element(id).disabled = state !== "ready";
  element("talk").replaceChildren(...turns.map(({ role, content }) => {
    const turn = document.createElement("div");
    turn.className = `turn ${role}`;
    turn.textContent = content;
    return turn;
  }));
}

function become(next, more = "") {
  state = next;
  detail = more;
  show();
}

// The ids of what the model is to continue: the newest turns that leave room for an answer.
function prompt(mode) {
  const room = Math.max(8, context - answer);
  for (let first = 0; ; first++) {
    const text = mode === "chat"
      ? tokenizer.apply_chat_template(turns.slice(first), { tokenize: false, add_generation_prompt: true })
      : tokenizer.bos_token + turns.at(-1).content;
    const ids = tokenizer.encode(text, { add_special_tokens: false });
    if (ids.length <= room) return ids;
    if (mode !== "chat" || first >= turns.length - 1) return ids.slice(-room);
  }
}

async function reply(mode) {
  const ids = prompt(mode);
  const turn = { role: "assistant", content: mode === "chat" ? "" : turns.at(-1).content };
  const shape = [1, ids.length];
  turns.push(turn);
  const streamer = new TextStreamer(tokenizer, {
    skip_prompt: true, skip_special_tokens: true,
    callback_function: (text) => { turn.content += text; show(); },
  });
  await model.generate({
    input_ids: new Tensor("int64", BigInt64Array.from(ids, BigInt), shape),
    attention_mask: new Tensor("int64", new BigInt64Array(ids.length).fill(1n), shape),
    max_new_tokens: Math.max(1, Math.min(answer, context - ids.length)),
    do_sample: true, temperature: 0.8, top_p: 0.9, streamer,
  });
}

async function guarded(task) {
  try {
    await task();
    become("ready");
  } catch (error) {
    become("failed", String(error?.message ?? error));
    throw error;
  }
}

element("language").onchange = (event) => { language = event.target.value; show(); };
element("mode").onchange = () => { turns = []; show(); };
element("clear").onclick = () => { turns = []; show(); };
element("text").onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    element("form").requestSubmit();
  }
};
element("form").onsubmit = (event) => {
  event.preventDefault();
  const content = element("text").value;
  if (state !== "ready" || !content.trim()) return;
  element("text").value = "";
  const mode = element("mode").value;
  if (mode === "write") turns = [];
  turns.push({ role: "user", content });
  become("writing");
  guarded(() => reply(mode));
};

show();
guarded(async () => {
  const seen = ({ status, file, progress }) => {
    if (status === "progress" && file.endsWith(".onnx")) become("loading", `${Math.round(progress)} %`);
  };
  tokenizer = await AutoTokenizer.from_pretrained("model");
  model = await AutoModelForCausalLM.from_pretrained("model", { dtype, device: "wasm", progress_callback: seen });
});
