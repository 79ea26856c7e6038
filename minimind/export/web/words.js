// What the page says, in each of its languages.
export const WORDS = {
  en: {
    mode: "Mode", language: "Language", chat: "chat", write: "continue a text",
    loading: "loading the model", ready: "ready", writing: "writing", failed: "it failed",
    ask: "Write a message", begin: "Begin a text", send: "Send", clear: "Clear",
    note: "The model runs in this browser; nothing that you write leaves it. What it says may be wrong.",
  },
  zh: {
    mode: "模式", language: "语言", chat: "对话", write: "续写",
    loading: "正在加载模型", ready: "就绪", writing: "正在生成", failed: "出错了",
    ask: "输入消息", begin: "输入文章的开头", send: "发送", clear: "清空",
    note: "模型在本浏览器中运行，您输入的内容不会离开这里。生成的内容可能有误。",
  },
};
