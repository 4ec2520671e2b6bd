"""What runs models, behind one small protocol (`base`): vLLM, transformers, or an endpoint that speaks OpenAI's."""
