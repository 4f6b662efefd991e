// Shows openapi.json, which stands beside this page whatever path a proxy puts them under.
SwaggerUIBundle({
  dom_id: "#api",
  url: new URL("openapi.json", document.baseURI).href,
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  syntaxHighlight: false, // long answers would freeze the page
  validatorUrl: null, // asks a server of somebody else
  requestInterceptor: (request) => {
    request.headers["X-Requested-With"] = "timedb"; // writes to a lake without users want it
    return request;
  },
});
