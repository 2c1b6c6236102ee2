// Swagger UI out of our own files, under the page's strict Content-Security-Policy.

const dark = matchMedia("(prefers-color-scheme: dark)");
const paint = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", paint);
paint();

async function open() {
  try {
    const spec = await (await fetch("openapi.json")).json();
    const here = new URL(".", location.href).pathname;
    if (here !== "/") spec.servers ??= [{ url: here.slice(0, -1) }]; // below a stage prefix "/" is another place
    document.title = spec.info.title;
    SwaggerUIBundle({ spec, dom_id: "#docs", validatorUrl: null, deepLinking: true, defaultModelsExpandDepth: 0 });
  } catch (error) {
    document.getElementById("docs").textContent = "The description cannot be loaded. Check your connection and reload.";
    console.error(error);
  }
}

open();
