SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  // Swagger UI would have the document judged by an outside service.
  validatorUrl: null,
});
