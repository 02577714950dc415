"""Results become MLflow runs, tables, figures and a page; the only room that knows mlflow."""
