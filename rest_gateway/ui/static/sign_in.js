// Signing in. A lake without users asks for nothing, which is found out by trying.

import { isLetIn, key } from "./api.js";
import { $, announce } from "./dom.js";

let letIn = () => {};

/** Readies the dialog and both buttons; `whenIn` is called after each change of who asks. */
export function readySignIn(whenIn) {
  letIn = whenIn;
  $("sign-in").addEventListener("click", () => askForKey());
  $("sign-out").addEventListener("click", () => {
    key.forget();
    // Anew, so that nothing of what the key had shown stays in the page.
    location.reload();
  });
  $("key-cancel").addEventListener("click", () => $("key-dialog").close());
  $("key-dialog").addEventListener("close", () => ($("key").value = ""));
  $("key-form").addEventListener("submit", submit);
}

/** Opens the dialog; `why` tells what was wrong with the key so far. */
export function askForKey(why = "") {
  key.forget();
  showWho({ closed: true });
  $("key-fault").textContent = why;
  if (!$("key-dialog").open) $("key-dialog").showModal();
  $("key").focus();
}

/** Shows the button that fits: none in an open lake. */
export function showWho({ closed }) {
  $("sign-in").hidden = !closed || key.get() !== null;
  $("sign-out").hidden = key.get() === null;
}

async function submit(event) {
  event.preventDefault();
  const given = $("key").value.trim();
  $("key-fault").textContent = "";
  try {
    if (!(await isLetIn(given))) {
      $("key-fault").textContent = "This key is not known here, or no longer.";
      $("key").select();
      return;
    }
  } catch (error) {
    $("key-fault").textContent = error.message;
    return;
  }
  key.set(given);
  $("key-dialog").close();
  showWho({ closed: true });
  announce("Signed in.");
  letIn();
}
