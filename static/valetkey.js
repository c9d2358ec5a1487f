// Loaded only by the last page of a handshake in a popup: tells the window that opened it how it ended.
// The one origin that may hear it was registered by the tenant; nothing is read from the opener.
(() => {
  "use strict";
  const end = document.getElementById("popup-message");
  if (!end || !window.opener || window.opener === window) return;
  const { targetOrigin, connectSession, state, completionCode } = end.dataset;
  if (!/^https?:\/\/[^/?#*]+$/.test(targetOrigin || "")) return;
  const message = { source: "valetkey", connect_session: connectSession, state };
  if (completionCode) message.completion_code = completionCode;
  window.opener.postMessage(message, targetOrigin);
  window.close();
})();
