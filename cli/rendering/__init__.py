"""What commands print: tables, boards, colours, diagrams, and errors."""
