mod echo;
mod messages;
mod properties;
mod vectors;
