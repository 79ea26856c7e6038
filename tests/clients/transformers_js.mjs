// transformers.js in node: the chat's text, its ids, the last logits and 24 greedy tokens, as JSON.
// node transformers_js.mjs FOLDER PROMPTS.json
import { readFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { AutoModelForCausalLM, AutoTokenizer, env } from "@huggingface/transformers";

const [folder, prompts] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = dirname(folder);
const name = basename(folder);
const tokenizer = await AutoTokenizer.from_pretrained(name);
const model = await AutoModelForCausalLM.from_pretrained(name, { dtype: "fp32", device: "cpu" });
const answers = [];
for (const content of JSON.parse(readFileSync(prompts, "utf8"))) {
  const text = tokenizer.apply_chat_template([{ role: "user", content }], {
    tokenize: false, add_generation_prompt: true,
  });
  const inputs = tokenizer(text, { add_special_tokens: false });
  const { logits } = await model(inputs);
  const length = inputs.input_ids.dims[1];
  const all = await model.generate({
    ...inputs, max_new_tokens: 24, do_sample: false, eos_token_id: -1,
  });
  const ids = [...all.data].map(Number);
  const last = logits.data.slice((length - 1) * logits.dims[2], length * logits.dims[2]);
  answers.push({
    text, ids: ids.slice(0, length), tokens: ids.slice(length), logits: [...last],
  });
}
console.log(JSON.stringify(answers));
