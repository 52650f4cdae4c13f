"""What users give: errors they can mend, URIs with options, tables, and parts of their own. Imports no other room."""
