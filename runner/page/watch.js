// Reads the page anew while the batch runs, and keeps what was unfolded.
const again = async () => {
  let live = true;
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const open of document.querySelectorAll("details[open][id]")) {
      const same = page.getElementById(open.id);
      if (same) same.open = true;
    }
    document.querySelector("main").replaceWith(page.querySelector("main"));
    document.querySelector("link").replaceWith(page.querySelector("link"));
    document.title = page.title;
    document.body.classList.remove("stale");
    live = document.querySelector("main").dataset.live === "yes";
  } catch {
    document.body.classList.add("stale");
  }
  if (live) setTimeout(again, 2000);
};
if (document.querySelector("main").dataset.live === "yes") setTimeout(again, 2000);
